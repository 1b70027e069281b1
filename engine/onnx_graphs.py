"""The graphs that a world's networks are exported as, for ONNX Runtime and TensorRT alike.

One step runs conditions -> backbone -> sampler and outcome; decoder and refiner draw its frame. All
that changes (KV cache, ring position, noise) comes in and goes out as tensors, so that one graph
serves every step. Weights stay those of the world; nothing here knows a runtime or a file.

| graph | inputs | outputs |
|---|---|---|
| conditions | pose (B, P), text (B, L) int64, audio (B, A), present (B, 3) bool, latents (B, N, C), last_foretold (B, N, C), last_phase (B, 2) | tokens (B, T, D), foretold (B, N, C), changes (B, N, E C) |
| backbone | tokens (B, T, D), cosine (T, head_dim), sine (T, head_dim), mask (B, S), keys (layers, B, kv_heads, S, head_dim), values (same), changes (B, N, E C) | hidden (B, N, Z), new_keys (layers, B, kv_heads, T, head_dim), new_values (same) |
| sampler | latents (B, N, C), hidden (B, N, Z), noise (B, N, C) | next_latents (B, N, C) |
| outcome | hidden (B, N, Z) | reward (B,), termination (B,) |
| decoder | latents (B, N, C) | frames (B, H, W, 3) uint8 |
| refiner | windows (B, h, w, 3) uint8, keypoints (B, K, 2), known (B, G) | drawn (B, h, w, 3) uint8 |

All others are float32; what is foretold, and the E changes, are there in worlds with a renderer
alone, phases in those where things move with the camera. The angles come in as tables, because
runtimes without float64 would lose them at step 1,000,000; the mask is 0 where a cached row is seen and `UNSEEN` elsewhere, the
present frame's own slot included: its rows reach attention directly.

Shapes: B batch, T = M + N positions of a frame, S = context_frames * T ring rows, N latent tokens,
C latent channels, D width, Z width of what the head is given, P pose size, L words, A audio size,
H W pixels, h w of the refiner's window, K keypoints, G what it knows besides.
"""  # noqa: E501

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from engine.onnx_layers import (
    GroupedAttention,
    NearPoseGuider,
    PlainHeadBlock,
    PlainRMSNorm,
    shallow,
    with_plain_norms,
)
from engine.onnx_refiner import RefinerGraph
from midas_world.autoencoder import (
    Autoencoder,
    quantize_frames,
    to_grid,
)
from midas_world.backbone import Layer
from midas_world.conditions import Conditions
from midas_world.config import WorldConfig
from midas_world.diffusion import HeadBlock, Sampler, sigma_schedule
from midas_world.transport import RowTransport
from midas_world.world import World
from midas_world.world_model import WorldModel, with_foretold

GRAPHS = ("conditions", "backbone", "sampler", "outcome", "decoder", "refiner")

# Added to the scores of rows that are not seen: the least float16, of which softmax makes 0.
UNSEEN = -65504.0


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module to export, and what its inputs and outputs are called.

    Attributes:
        name: One of GRAPHS.
        module: Takes and returns tensors only.
        inputs: Name to an example, in the order of the module's arguments.
        outputs: Names, in the order of the module's results.
        batch_axes: Which axis of an input is the batch; inputs that have none are left out.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    batch_axes: dict[str, int]


def graph_names(config: WorldConfig) -> tuple[str, ...]:
    """Return those of GRAPHS that a world has."""
    return tuple(name for name in GRAPHS if name != "refiner" or config.is_refined)


def make_graph(name: str, world: World, *, num_denoise_steps: int, batch_size: int) -> Graph:
    """Return a graph of a world, with zeros of a batch size as example inputs.

    Args:
        name: One of GRAPHS.
        world: Whose weights it holds; not changed.
        num_denoise_steps: K; only the sampler knows it.
        batch_size: Of the examples.
    """
    model, config = world.model, world.config.world
    sizes, backbone = config.conditions, config.backbone
    tokens = config.tokens_per_frame
    positions = model.positions_per_frame
    latents = torch.zeros(batch_size, tokens, config.autoencoder.latent_channels)
    hidden = torch.zeros(batch_size, tokens, config.hidden_width)
    is_foretold, is_moving = config.is_foretold, config.transport.is_moving
    given = {
        "pose": torch.zeros(batch_size, sizes.pose_size),
        "text": torch.zeros(batch_size, sizes.text_length, dtype=torch.int64),
        "audio": torch.zeros(batch_size, sizes.audio_size),
        "present": torch.zeros(batch_size, 3, dtype=torch.bool),
    }
    match name:
        case "conditions":
            module = ConditionsGraph(model)
            outputs = ConditionsGraph.outputs(config)
            inputs = {
                **given,
                "latents": latents,
                **({"last_foretold": latents.clone()} if is_foretold else {}),
                **({"last_phase": torch.zeros(batch_size, 2)} if is_moving else {}),
            }
        case "backbone":
            module, outputs = BackboneGraph(model), ("hidden", "new_keys", "new_values")
            rows = backbone.context_frames * positions
            cached = torch.zeros(
                backbone.num_layers, batch_size, backbone.num_kv_heads, rows, backbone.head_dim
            )
            inputs = {
                "tokens": torch.zeros(batch_size, positions, backbone.width),
                "cosine": torch.zeros(positions, backbone.head_dim),
                "sine": torch.zeros(positions, backbone.head_dim),
                "mask": torch.zeros(batch_size, rows),
                "keys": cached,
                "values": cached.clone(),
                **({"changes": latents.repeat(1, 1, config.num_changes)} if is_foretold else {}),
            }
        case "sampler":
            module, outputs = SamplerGraph(model, num_denoise_steps), ("next_latents",)
            inputs = {"latents": latents, "hidden": hidden, "noise": latents.clone()}
        case "outcome":
            module, outputs = OutcomeGraph(model), ("reward", "termination")
            inputs = {"hidden": hidden}
        case "decoder":
            module, outputs = DecoderGraph(world.autoencoder, config.grid), ("frames",)
            inputs = {"latents": latents}
        case "refiner" if world.refiner is not None:
            module, outputs = RefinerGraph(world.refiner), ("drawn",)
            inputs = {
                "windows": torch.zeros(batch_size, *config.refiner.window, 3, dtype=torch.uint8),
                "keypoints": torch.zeros(batch_size, sizes.num_keypoints, 2),
                "known": torch.zeros(batch_size, world.refiner.num_known),
            }
        case _:
            names = ", ".join(graph_names(config))
            raise ValueError(f"graph must be one of {names}, got {name!r}")
    axes = {key: 1 if key in ("keys", "values") else 0 for key in inputs}
    axes = {key: axis for key, axis in axes.items() if key not in ("cosine", "sine")}
    return Graph(name=name, module=module.eval(), inputs=inputs, outputs=outputs, batch_axes=axes)


class ConditionsGraph(nn.Module):
    """One frame's conditions and the last frame's latents to backbone tokens."""

    @staticmethod
    def outputs(config: WorldConfig) -> tuple[str, ...]:
        """Return what it returns, by name, in order."""
        return ("tokens", "foretold", "changes") if config.is_foretold else ("tokens",)

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        # Shallow: the weights stay the world's, only the bag of words is another module.
        self.model = shallow(model)
        self.model.conditions = shallow(model.conditions)
        self.model.conditions.words = MeanOfWords(model.conditions.words)  # pyright: ignore[reportAttributeAccessIssue]
        renderer = self.model.conditions.renderer
        if renderer is not None:
            renderer = with_plain_norms(renderer)
            if renderer.guider is not None:
                renderer.guider = NearPoseGuider(renderer.guider)
            self.model.conditions.renderer = renderer
        if model.transport is not None:
            # ONNX Runtime lays out no weights of a product for all rows.
            self.model.transport = RowTransport(model.transport)

    def forward(
        self,
        pose: Tensor,
        text: Tensor,
        audio: Tensor,
        present: Tensor,
        latents: Tensor,
        last_foretold: Tensor | None = None,
        last_phase: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the tensors that `outputs` names."""
        conditions = Conditions(
            pose=pose[:, None], text=text[:, None], audio=audio[:, None], present=present[:, None]
        )
        level = torch.full((1, 1), self.model.config.play_noise)
        tokens, foretold = self.model.embed(latents[:, None], level, conditions)
        if foretold is None or last_foretold is None:
            return tokens[:, 0]
        now, phase = foretold[:, 0], self.model.conditions.camera_phase(conditions)[:, 0]
        changes = self.model.foretold_changes(
            now,
            last_foretold,
            latents,
            phase=phase,
            last_phase=phase if last_phase is None else last_phase,
        )
        return tokens[:, 0], now, changes


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


class BackboneGraph(nn.Module):
    """One frame through the backbone: the ring comes in whole, its new rows alone go out."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.num_condition_tokens = model.config.conditions.num_tokens
        layers = [cast("Layer", layer) for layer in model.backbone.layers]
        self.attentions = nn.ModuleList([GroupedAttention(layer.self_attn) for layer in layers])
        self.mlps = nn.ModuleList([layer.mlp for layer in layers])
        norms = [(layer.input_layernorm, layer.post_attention_layernorm) for layer in layers]
        self.norms = nn.ModuleList([PlainRMSNorm(norm) for pair in norms for norm in pair])
        self.norm = PlainRMSNorm(model.backbone.norm)

    def forward(
        self,
        tokens: Tensor,
        cosine: Tensor,
        sine: Tensor,
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
        changes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return hidden states and the present frame's rotated keys and values."""
        x, mask, norms = tokens, mask[:, None, None], iter(self.norms)
        new_keys, new_values = [], []
        tables = None
        for attention, mlp, past_keys, past_values in zip(
            self.attentions, self.mlps, keys.split(1), values.split(1), strict=True
        ):
            assert isinstance(attention, GroupedAttention)
            tables = tables or attention.tables(cosine, sine)
            attended, k, v = attention(
                next(norms)(x), tables, keys=past_keys, values=past_values, mask=mask
            )
            new_keys.append(k)
            new_values.append(v)
            x = x + attended
            if mlp is self.mlps[-1]:
                # From here on, nothing is asked of the condition tokens.
                x = x[:, self.num_condition_tokens :]
            x = x + mlp(next(norms)(x))
        return with_foretold(self.norm(x), changes), torch.cat(new_keys), torch.cat(new_values)


class SamplerGraph(nn.Module):
    """All K denoise steps from noise to the next frame's latents."""

    def __init__(self, model: WorldModel, num_denoise_steps: int) -> None:
        super().__init__()
        head = shallow(model.head)
        blocks = [cast("HeadBlock", block) for block in head.blocks]
        head.blocks = nn.ModuleList([PlainHeadBlock(block) for block in blocks])
        self.sampler = Sampler(head, sigma_schedule(num_denoise_steps))
        self.change_std = model.change_std

    def forward(self, latents: Tensor, hidden: Tensor, noise: Tensor) -> Tensor:
        """Return the next latents (B, N, C)."""
        change = self.sampler(latents, hidden.to(self.sampler.dtype), noise)
        return latents + self.change_std * change


class OutcomeGraph(nn.Module):
    """Expected reward and termination probability."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.outcome = model.outcome

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return rewards (B,) and probabilities (B,)."""
        reward, termination = self.outcome(hidden)
        return self.outcome.reward(reward), termination.sigmoid()


class DecoderGraph(nn.Module):
    """Latents to uint8 frames."""

    def __init__(self, autoencoder: Autoencoder, grid: tuple[int, int]) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.grid = grid

    def forward(self, latents: Tensor) -> Tensor:
        """Return frames (B, H, W, 3) uint8."""
        return quantize_frames(self.autoencoder.decode(to_grid(latents, self.grid)))
