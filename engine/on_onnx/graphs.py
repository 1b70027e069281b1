"""The graphs that a world's networks are exported as, for ONNX Runtime.

One step runs backbone -> head; the decoder draws its frame. All that changes (KV cache, ring
position, noise) comes in and goes out as tensors, so that one graph serves every step. The modules
are the world's own; nothing here knows a runtime or a file.

| graph | inputs | outputs |
|---|---|---|
| backbone | latents (B, N, C), pose (B, P), text (B, L) int64, audio (B, A), present (B, 3) bool, entries (B, J, 2), tally (B, 2), frames_held (B,) int64, before (B, N, C), last_camera (B,), last_audio (B, A), cosine (T, head_dim), sine (T, head_dim), mask (B, S + T), keys (layers, B, kv_heads, S, head_dim), values (same) | copies (B, P, c, h, w), maps (B, I, h, w), vector (B, V), hidden (B, N, D), near (B, 1, h, w), told (B, F), gone (B, J) bool, coming (B, 2, K + 1), camera (B,), new_keys (layers, B, kv_heads, T, head_dim), new_values (same) |
| head | latents (B, N, C), noise (B, N, C), copies, maps, vector, hidden, near, told | next_latents (B, N, C), reward (B,), cost (B,), termination (B,) |
| decoder | latents (B, N, C) | frames (B, H, W, 3) uint8 |

All others are float32. The angles come in as tables, because runtimes without float64 would lose
them at step 1,000,000; the mask is 0 where a row is seen and `UNSEEN` elsewhere, the ring's rows
before the present frame's own, whose slot in the ring is not seen.

Shapes: B batch, T = M + N positions of a frame, S = context_frames * T ring rows, N latent tokens,
C their channels, c h w fine grid, D width, J entry codes, K classes of things, P pose size or
copies, L words, A audio size, I map channels, V vector size, H W pixels.
"""  # noqa: E501

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from engine.on_torch.networks import Sampler
from midas_world.model.autoencoder import quantize_frames, to_grid
from midas_world.model.conditions import Conditions, stack_conditions
from midas_world.model.head import Guidance
from midas_world.model.kv_cache import KVCache
from midas_world.model.world_model import WorldModel
from midas_world.types import StepConditions
from midas_world.world import World

GRAPHS = ("backbone", "head", "decoder")
CONDITIONS = ("pose", "text", "audio", "present", "entries", "tally")
# Outputs of the backbone that the head takes; all but the last two as `Guidance` has them.
GUIDANCE = ("copies", "maps", "vector", "hidden", "near", "told")
BACKBONE_INPUTS = (
    *("latents", *CONDITIONS, "frames_held", "before", "last_camera", "last_audio"),
    *("cosine", "sine", "mask", "keys", "values"),
)
BACKBONE_OUTPUTS = (*GUIDANCE, "gone", "coming", "camera", "new_keys", "new_values")
HEAD_OUTPUTS = ("next_latents", "reward", "cost", "termination")

# Added to the scores of rows that are not seen: the least float16, of which softmax makes 0.
UNSEEN = -65504.0

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module to export, and what its inputs and outputs are called.

    Attributes:
        name: One of GRAPHS.
        module: Takes tensors, as many as there are inputs, and returns tensors.
        inputs: Name to an example, in the order of the module's arguments.
        outputs: Names, in the order of the module's results.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    @property
    def batch_axes(self) -> dict[str, int]:
        """Which axis of an input is the batch; inputs that have none are left out."""
        axes = {key: 1 if key in ("keys", "values") else 0 for key in self.inputs}
        return {key: axis for key, axis in axes.items() if key not in ("cosine", "sine")}

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the module makes of inputs, by name."""
        made = self.module(*(inputs[name] for name in self.inputs))
        made = made if isinstance(made, tuple) else (made,)
        return dict(zip(self.outputs, made, strict=True))


def make_graph(name: str, world: World, *, num_denoise_steps: int, batch_size: int) -> Graph:
    """Return a graph of a world, with zeros of a batch size as example inputs."""
    config, model = world.config.world, _with_plain_words(world.model)
    blank = stack_conditions(
        [StepConditions()] * batch_size, config.conditions, capacity=config.entries.capacity
    )
    latents = torch.zeros(batch_size, config.tokens_per_frame, config.token_channels)
    match name:
        case "backbone":
            cache = model.new_cache(batch_size, dtype=torch.float32, device=torch.device("cpu"))
            module, outputs = BackboneGraph(model), BACKBONE_OUTPUTS
            inputs = backbone_inputs(latents, blank, cache)
        case "head":
            module, outputs = HeadGraph(model, num_denoise_steps), HEAD_OUTPUTS
            before = make_graph("backbone", world, num_denoise_steps=1, batch_size=batch_size)
            guidance = before.run(before.inputs)
            inputs = {"latents": latents, "noise": latents.clone()}
            inputs |= {key: guidance[key] for key in GUIDANCE}
        case "decoder":
            module, outputs = DecoderGraph(world), ("frames",)
            inputs = {"latents": latents}
        case _:
            raise ValueError(f"graph must be one of {', '.join(GRAPHS)}, got {name!r}")
    return Graph(name=name, module=module.eval(), inputs=inputs, outputs=outputs)


def backbone_inputs(latents: Tensor, conditions: Conditions, cache: KVCache) -> dict[str, Tensor]:
    """Return the tensors of BACKBONE_INPUTS for the next frame of a cache, some of them its own."""
    cosine, sine = cache.rope()
    rows, own = cache.keys.shape[3], cache.slot * cache.positions_per_frame
    mask = torch.zeros(len(latents), rows + cache.positions_per_frame)
    mask[:, :rows].masked_fill_(~cache.mask()[:, 0, 0], UNSEEN)
    # The present frame's rows come behind; what its slot holds is a frame too old.
    mask[:, own : own + cache.positions_per_frame] = UNSEEN
    return {
        "latents": latents,
        **{key: getattr(conditions, key)[:, 0] for key in CONDITIONS},
        "frames_held": cache.frames_held,
        "before": cache.before,
        "last_camera": cache.camera,
        "last_audio": cache.audio,
        "cosine": cosine,
        "sine": sine,
        "mask": mask,
        "keys": cache.keys,
        "values": cache.values,
    }


class GraphCache:
    """A KV cache of tensors that come in, for `step_guidance`; new rows are kept apart."""

    def __init__(self, positions_per_frame: int, given: Mapping[str, Tensor]) -> None:
        self.positions_per_frame = positions_per_frame
        self._given = given
        self.frames_held = given["frames_held"]
        # Copies: what is written to them is no input any more.
        self.before, self.camera = given["before"].clone(), given["last_camera"].clone()
        self.audio = given["last_audio"].clone()
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def rope(self) -> tuple[Tensor, Tensor]:
        """Return cosine and sine for the present frame."""
        return self._given["cosine"], self._given["sine"]

    def mask(self) -> Tensor:
        """Return what is added to the scores, (B, 1, 1, S + T)."""
        return self._given["mask"][:, None, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the present frame's rows of a layer; return the ring's and these behind them."""
        self.new_keys.append(keys)
        self.new_values.append(values)
        return (
            torch.cat((self._given["keys"][layer], keys), dim=2),
            torch.cat((self._given["values"][layer], values), dim=2),
        )


class BackboneGraph(nn.Module):
    """One frame's conditions and the last frame through the backbone, to the head's guidance."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of BACKBONE_OUTPUTS of those of BACKBONE_INPUTS."""
        named = dict(zip(BACKBONE_INPUTS, given, strict=True))
        conditions = _conditions(named)
        cache = GraphCache(self.model.positions_per_frame, named)
        guidance, fate, coming = self.model.step_guidance(
            named["latents"], conditions, cast("KVCache", cache)
        )
        return (
            guidance.copies,
            guidance.maps,
            guidance.vector,
            guidance.hidden,
            self.model.near(conditions),
            fate.told,
            fate.gone > 0,
            coming.softmax(dim=-1),
            cache.camera,
            torch.stack(cache.new_keys),
            torch.stack(cache.new_values),
        )


class HeadGraph(nn.Module):
    """All K denoise steps from noise to the next frame's latents, and what the step brings."""

    def __init__(self, model: WorldModel, num_denoise_steps: int) -> None:
        super().__init__()
        self.model, self.sampler = model, Sampler(model, num_denoise_steps)
        self.sampler.sigmas = cast("Tensor", _Levels(self.sampler.sigmas.tolist()))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of HEAD_OUTPUTS, of latents, noise and those of GUIDANCE."""
        model, (latents, noise, *parts, near, told) = self.model, given
        guidance = Guidance(model.to_grid(latents), *parts)
        made = self.sampler(guidance, model.to_grid(noise))
        outcome = model.outcomes(made, guidance, near, told)
        return (
            model.to_tokens(made),
            model.outcome.reward(outcome.reward),
            outcome.cost.sigmoid(),
            outcome.termination.sigmoid(),
        )


class _Levels(list[float]):
    """Noise levels, of which the exporter takes the numbers; those of a tensor it cannot know."""

    def tolist(self) -> list[float]:
        """Return the levels."""
        return [*self]


class DecoderGraph(nn.Module):
    """Latents to uint8 frames."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.autoencoder = world.autoencoder
        self._grid = world.config.world.token_grid, world.config.world.token_block

    def forward(self, *given: Tensor) -> Tensor:
        """Return frames (B, H, W, 3) uint8 of latents."""
        (latents,) = given
        return quantize_frames(self.autoencoder.decode(to_grid(latents, *self._grid)))


def _conditions(named: Mapping[str, Tensor]) -> Conditions:
    """Return conditions of one frame, (B, 1, ...), of tensors without frames."""
    return Conditions(**{name: named[name][:, None] for name in CONDITIONS})


class MeanOfWords(nn.Module):
    """What EmbeddingBag gives in mode "mean", in operators that every runtime knows."""

    def __init__(self, words: nn.EmbeddingBag) -> None:
        super().__init__()
        assert words.mode == "mean"
        assert words.padding_idx == 0
        self.weight = words.weight

    def forward(self, bags: Tensor) -> Tensor:
        """Return the mean over words that are not 0, (B, L) -> (B, width)."""
        given = (bags != 0).to(self.weight.dtype)[..., None]
        return (self.weight[bags] * given).sum(dim=1) / given.sum(dim=1).clamp_min(1.0)


def _with_plain_words(model: WorldModel) -> WorldModel:
    """Return a model of the same weights, whose words are `MeanOfWords`."""
    made = _shallow(model)
    made.conditions = _shallow(model.conditions)
    made.conditions.words = MeanOfWords(model.conditions.words)  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _shallow(module: _Module) -> _Module:
    """Return a module of the same parts, which can be exchanged without changing the other."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made
