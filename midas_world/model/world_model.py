"""The world model: conditions, backbone, diffusion head and outcome heads put together.

Frame t's conditions enter the backbone beside the latent tokens of frame t - 1; the hidden states
guide the head, which makes frame t on the fine grid from the last two frames' latents, moved
copies of the last one, what conditions and codes alone paint, and skeleton maps. So a frame costs
one backbone pass and K head passes, and the frame just made enters with the next step. Pixels are
not its business.

A backbone token is a block of the fine grid, space to channels: (B, N, C) and (B, c, h, w) are the
same numbers.

Shapes: B batch, F frames, M condition tokens, N tokens per frame, C = c * block^2 their channels,
c latent channels, h w fine grid, D backbone width, A audio size, K entry classes.
"""

import math
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from midas_world.config import WorldConfig
from midas_world.model.autoencoder import to_grid, to_tokens
from midas_world.model.backbone import Backbone
from midas_world.model.conditions import (
    POSE,
    ConditionEncoder,
    Conditions,
    Cues,
    tally_of,
    with_hits,
)
from midas_world.model.diffusion import euler_sample, sigma_schedule
from midas_world.model.entries import FATE_SIZE, EntryMaps, EntryPrior, Fate, Fates, kept
from midas_world.model.head import DiffusionHead, Guidance
from midas_world.model.kv_cache import KVCache
from midas_world.model.motion import Flow, Motion
from midas_world.model.outcome import OutcomeHead
from midas_world.model.scenery import Scenery
from midas_world.model.windows import Window


class Before(NamedTuple):
    """What is remembered of the frames before, beside the backbone's cache.

    Attributes:
        latents: (B, c, h, w) of the frame before the last.
        camera: (B,) px of the last frame.
        audio: (B, A) of the last frame.
    """

    latents: Tensor
    camera: Tensor
    audio: Tensor


class Outcome(NamedTuple):
    """What a step brings beside its picture.

    Attributes:
        reward: (B, bins) logits.
        cost: (B,) logits of a hit.
        termination: (B,) logits of the episode's end.
    """

    reward: Tensor
    cost: Tensor
    termination: Tensor


class Guided(NamedTuple):
    """What is known of a step before its picture is made.

    Attributes:
        guidance: What the head is told.
        fate: Of the codes.
        coming: (B, 2, K + 1) logits of what enters next at the left and at the right.
    """

    guidance: Guidance
    fate: Fate
    coming: Tensor


class WorldModel(nn.Module):
    """Everything between conditions and the next frame's latents."""

    change_std: Tensor

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.backbone.width, config.autoencoder.latent_channels
        step = config.autoencoder.downsampling
        layers = tuple(config.scenery.layers.values())
        scrolling = (*config.motion.parallax, *(layer.parallax for layer in layers))
        self.conditions = ConditionEncoder(
            config.conditions,
            width=width,
            grid=config.grid,
            frame_size=(config.height, config.width),
            parallax=tuple(dict.fromkeys(scrolling)),
        )
        self.latent_in = nn.Linear(config.token_channels, width)
        self.places = nn.Parameter(0.02 * torch.randn(config.tokens_per_frame, width))
        self.noise_level = nn.Embedding(config.noise_buckets, width)
        nn.init.normal_(self.noise_level.weight, std=0.02)
        num_told = 3 * config.entries.num_classes
        self.entry_in = nn.Linear(num_told, width, bias=False) if num_told else None
        self.backbone = Backbone(config.backbone)
        self.motion = Motion(
            config.motion,
            channels=channels,
            downsampling=step,
            loop=config.conditions.camera.loop,
        )
        self.entries = EntryMaps(config.entries, grid=config.grid, downsampling=step)
        self.fates = Fates(config.entries, config.conditions, half_width=config.width / 2)
        self.scenery = None
        if config.scenery.width:
            self.scenery = Scenery(
                config.scenery,
                word_width=config.conditions.word_width,
                phase_size=self.conditions.phase_size,
                thing_channels=self.entries.num_channels,
                latent_channels=channels,
                grid=config.grid,
                downsampling=step,
            )
        self.windows = nn.ModuleList(
            [
                Window(
                    window,
                    latent_channels=channels,
                    map_channels=self.conditions.wave_channels if window.at is None else 0,
                    vector_size=self.conditions.vector_size,
                    grid=config.grid,
                    downsampling=step,
                )
                for window in config.scenery.windows.values()
            ]
        )
        self.prior = EntryPrior(
            config.entries,
            width=width,
            token_grid=config.token_grid,
            half_width=config.width / 2,
        )
        num_travels = len(config.motion.parallax)
        vector_size = self.conditions.vector_size + num_travels + 1
        self.head = DiffusionHead(
            config.head,
            latent_channels=channels,
            num_copies=config.num_copies,
            map_channels=channels  # of the frame before the last
            + self.conditions.map_channels
            + self.entries.num_channels
            + 1,  # what is lost
            vector_size=vector_size,
            hidden_width=width,
            grid=config.grid,
            token_grid=config.token_grid,
            is_painted=self.scenery is not None,
            flow=Flow(config.motion.flow, config.autoencoder) if config.motion.flow else None,
        )
        self.outcome = OutcomeHead(
            width=config.outcome_width,
            latent_channels=channels,
            fate_size=FATE_SIZE,
            hidden_width=width,
            vector_size=vector_size,
            reward_limit=config.reward_limit,
            reward_bins=config.reward_bins,
        )
        self.register_buffer("change_std", torch.ones(channels))
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.backbone.num_layers))

    @property
    def positions_per_frame(self) -> int:
        """M + N: the backbone's positions per frame."""
        return self.config.conditions.num_tokens + self.config.tokens_per_frame

    def to_grid(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, C) on the fine grid, (B, c, h, w)."""
        return to_grid(tokens, self.config.token_grid, self.config.token_block)

    def to_tokens(self, latents: Tensor) -> Tensor:
        """Return latents (B, c, h, w) as tokens (B, N, C)."""
        return to_tokens(latents, self.config.token_block)

    def bucket(self, level: Tensor) -> Tensor:
        """Return the bucket of noise levels in [0, context_noise], the same shape, int64."""
        scaled = level / max(self.config.context_noise, 1e-6) * self.config.noise_buckets
        return scaled.long().clamp(0, self.config.noise_buckets - 1)

    def embed(self, context: Tensor, level: Tensor, conditions: Conditions) -> Tensor:
        """Return backbone tokens, (B, F, M + N, D).

        Args:
            context: (B, F, N, C) latent tokens of the frame before each frame.
            level: (B, F) noise level on them.
            conditions: Of each frame.
        """
        instruction = self.conditions.tokens(conditions)
        latent = self.latent_in(context) + self.places
        latent = latent + self.noise_level(self.bucket(level))[:, :, None]
        if self.entry_in is not None:
            instruction = instruction + self.entry_in(self._told(conditions.entries))[:, :, None]
        return torch.cat((instruction.to(latent.dtype), latent), dim=2)

    def hidden(self, context: Tensor, level: Tensor, conditions: Conditions) -> Tensor:
        """Return the hidden states of whole sequences, (B, F, N, D); arguments as in `embed`."""
        tokens = self.embed(context, level, conditions)
        hidden = self.backbone(tokens.flatten(1, 2), positions_per_frame=self.positions_per_frame)
        return hidden.unflatten(1, tokens.shape[1:3])[:, :, self.config.conditions.num_tokens :]

    def guide(
        self,
        last: Tensor,
        conditions: Conditions,
        before: Before,
        hidden: Tensor,
        *,
        entries: Tensor,
        level: Tensor | None = None,
        lost: Tensor | None = None,
    ) -> tuple[Guidance, Cues]:
        """Return what the head is told of the next frame.

        Args:
            last: (B, c, h, w) latents of the last frame.
            conditions: (B, 1, ...) of the next frame; the tally with the step's own hits.
            before: Of the frames before.
            hidden: (B, N, D) of the backbone.
            entries: (B, J, 2) codes that are kept in the step; see `kept`.
            level: (B,) noise level on the last two frames; None: `play_noise`.
            lost: (B, 1, h, w), 1 where those frames were lost; None: nowhere.
        """
        cues = self.conditions.cues(conditions)
        travel = self.motion.travel(cues.camera, before.camera)
        copies = self.motion(last, travel)
        if level is None:
            level = last.new_full((len(last),), self.config.play_noise)
        if lost is None:
            lost = last.new_zeros(len(last), 1, *self.config.grid)
        things = self.entries(entries, cues.clock)
        maps = (before.latents, self.conditions.maps(conditions), things, lost)
        vector = self.conditions.vector(conditions, cues, before.audio)
        if self.scenery is not None:
            painted = self.painted(self.scenery(*cues, things), conditions, vector)
            copies = torch.cat((copies, painted[:, None]), dim=1)
        scale = self.config.motion.reach / 2
        parts = (vector, travel / scale, level[:, None])
        guidance = Guidance(
            last=last,
            copies=copies,
            maps=torch.cat([part.to(last.dtype) for part in maps], dim=1),
            vector=torch.cat([part.to(vector.dtype) for part in parts], dim=1),
            hidden=hidden,
        )
        return guidance, cues

    def fate(self, conditions: Conditions) -> Fate:
        """Return what becomes of the codes in the first frame of conditions."""
        pose = conditions.pose[:, 0] * conditions.present[:, 0, POSE, None]
        return self.fates(conditions.entries[:, 0], pose, tally_of(conditions))

    def with_own_hits(self, conditions: Conditions, fate: Fate) -> Conditions:
        """Return conditions of one frame whose tally counts the hits that codes tell of."""
        _, cost, _ = self.outcome.split(self.outcome.fates(fate.told))
        return with_hits(conditions, cost > 0, lives=self.config.lives)

    def painted(
        self, scenery: Tensor, conditions: Conditions, vector: Tensor, *, stop: int | None = None
    ) -> Tensor:
        """Return the scenery's latents (B, c, h, w) with the windows painted into it.

        Args:
            scenery: Latents of the same shape, float32.
            conditions: Whose first frame is meant.
            vector: (B, V') of them, as the condition encoder gives it.
            stop: The first window that is not painted; None: all are.
        """
        middle = self.conditions.middle_of(conditions)
        waves = partial(self.conditions.waves, conditions)
        windows = zip(self.windows, self.config.scenery.windows.values(), strict=True)
        for window, config in islice(windows, stop):
            made = window(scenery, vector, middle, waves)
            shown = self.conditions.is_shown(conditions, config.shown_by)
            scenery = (
                made if shown is None else torch.where(shown[:, None, None, None], made, scenery)
            )
        return scenery

    def near(self, conditions: Conditions) -> Tensor:
        """Return where the character is, (B, 1, h, w) in [0, 1]; everywhere if nobody says.

        Where no outcome is read from the picture, nobody asks: zeros.
        """
        count, everywhere = len(self.config.conditions.limbs), (1, *self.config.grid)
        if not self.config.outcome_width:
            return conditions.pose.new_zeros(len(conditions.pose), *everywhere)
        if not count:
            return conditions.pose.new_ones(len(conditions.pose), *everywhere)
        return self.conditions.maps(conditions)[:, :count].amax(dim=1, keepdim=True)

    def outcomes(self, made: Tensor, guidance: Guidance, near: Tensor, told: Tensor) -> Outcome:
        """Return the logits of what the step to `made` (B, c, h, w) brings.

        Args:
            made: Latents of the new frame.
            guidance: That it was made with.
            near: (B, 1, h, w), as `near` gives it.
            told: (B, FATE_SIZE) by the fates of the codes.
        """
        reward, cost, termination = self.outcome(made, guidance, near, told)
        return Outcome(reward=reward, cost=cost, termination=termination)

    def step_guidance(self, context: Tensor, conditions: Conditions, cache: KVCache) -> Guided:
        """Return what is known of the next frame before it is made; writes its cache slot.

        Args:
            context: (B, N, C) latent tokens of the last frame.
            conditions: Of one frame.
            cache: Of the frames before; the caller commits it.
        """
        level = context.new_full((context.shape[0], 1), self.config.play_noise)
        tokens = self.embed(context[:, None], level, conditions)[:, 0]
        tokens = tokens.to(self.backbone.norm.weight.dtype)
        hidden = self.backbone.step(tokens, cache)[:, self.config.conditions.num_tokens :]
        is_first = cache.frames_held == 0
        cues = self.conditions.cues(conditions)
        before = Before(
            latents=self.to_grid(torch.where(is_first[:, None, None], context, cache.before)),
            camera=torch.where(is_first, cues.camera, cache.camera),
            audio=torch.where(is_first[:, None], conditions.audio[:, 0], cache.audio),
        )
        fate = self.fate(conditions)
        entries = kept(conditions.entries[:, 0], fate.gone)
        shown = self.with_own_hits(conditions, fate)
        last = self.to_grid(context)
        guidance, cues = self.guide(last, shown, before, hidden, entries=entries)
        cache.before.copy_(context)
        cache.camera.copy_(cues.camera)
        cache.audio.copy_(conditions.audio[:, 0])
        coming = self.prior(hidden, conditions.entries[:, 0]).float()
        return Guided(guidance=guidance, fate=fate, coming=coming)

    def sample(self, guidance: Guidance, noise: Tensor, *, num_denoise_steps: int) -> Tensor:
        """Return the next frame's latents, (B, c, h, w); noise likewise."""
        std = self.change_std[:, None, None]

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return (self.head(x, sigma, guidance) - guidance.last) / std

        return guidance.last + std * euler_sample(predict, noise, sigma_schedule(num_denoise_steps))

    def new_cache(self, batch_size: int, *, dtype: torch.dtype, device: torch.device) -> KVCache:
        """Return an empty cache for B games."""
        return KVCache(
            self.config.backbone,
            batch_size=batch_size,
            positions_per_frame=self.positions_per_frame,
            dtype=dtype,
            device=device,
            token_shape=(self.config.tokens_per_frame, self.config.token_channels),
            audio_size=self.config.conditions.audio_size,
        )

    def _told(self, entries: Tensor) -> Tensor:
        """Return codes as the backbone is told them, (..., J, 2) -> (..., 3 K).

        Of each class: how many at the left and at the right, and their places' sum.
        """
        kind, place = entries.unbind(dim=-1)
        place = place / (self.config.width / 2)
        classes = torch.arange(self.config.entries.num_classes, device=entries.device)
        is_it = (kind[..., None] == classes).to(place.dtype)  # (..., J, K)
        left = (place < 0).to(place.dtype)[..., None]
        parts = (is_it * left, is_it * (1 - left), is_it * place[..., None])
        return torch.cat([part.sum(dim=-2) for part in parts], dim=-1)
