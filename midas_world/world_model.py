"""The world model: conditions, backbone, diffusion head and outcome heads put together.

Frame t's conditions enter the backbone beside the latent tokens of frame t - 1; the hidden states
condition the head, which samples the change to frame t. So a frame costs one backbone pass and K
head passes, and the frame just made enters with the next step. Pixels are not its business.

Where the conditions have a renderer, changes that it foretells stand beside the hidden states: the
*correction*, from the last frame to what is foretold of this one, which forgets what the renderer
does not know, and *motions*, which keep it: what is foretold, and on it what the last frame had
beyond what was foretold, moved with the camera.

Shapes: B batch, F frames, M condition tokens, N tokens per frame, C latent channels, D width,
E foretold changes (0 without a renderer), Z = D + E C width of what the head is given.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder
from midas_world.backbone import Backbone
from midas_world.conditions import ConditionEncoder, Conditions
from midas_world.config import WorldConfig
from midas_world.diffusion import (
    DiffusionHead,
    euler_sample,
    head_loss,
    ramp_weight,
    sample_noise,
    sample_sigma,
    sigma_schedule,
)
from midas_world.klt import CellTransform
from midas_world.kv_cache import KVCache
from midas_world.layers import mlp
from midas_world.transport import Transport

# Head passes per frame of the rollouts that training makes.
OWN_DENOISE_STEPS = 2


class OutcomeHead(nn.Module):
    """Reward (a distribution over symlog bins) and termination from a frame's hidden states."""

    bins: Tensor

    def __init__(self, *, hidden_width: int, reward_limit: float, reward_bins: int) -> None:
        super().__init__()
        self.hidden_width = hidden_width
        self.trunk = mlp(2 * hidden_width, hidden_width, reward_bins + 1)
        limit = math.log1p(reward_limit)
        self.register_buffer("bins", torch.linspace(-limit, limit, reward_bins), persistent=False)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(..., N, Z) -> reward logits (..., bins) and termination logits (...)."""
        hidden = hidden[..., : self.hidden_width]
        pooled = torch.cat((hidden.mean(dim=-2), hidden.amax(dim=-2)), dim=-1)
        out = self.trunk(pooled)
        return out[..., :-1], out[..., -1]

    def reward(self, logits: Tensor) -> Tensor:
        """Return the expected reward of logits (..., bins)."""
        mean = (logits.float().softmax(dim=-1) * self.bins).sum(dim=-1)
        return mean.sign() * (mean.abs().exp() - 1.0)

    def reward_loss(self, logits: Tensor, reward: Tensor) -> Tensor:
        """Return cross entropy with the two-hot target (Hafner et al. 2023, eq. 9)."""
        symlog = reward.sign() * reward.abs().log1p()
        step = self.bins[1] - self.bins[0]
        place = ((symlog.clamp(self.bins[0], self.bins[-1]) - self.bins[0]) / step)[..., None]
        index = torch.arange(len(self.bins), device=reward.device)
        target = (1.0 - (place - index).abs()).clamp_min(0.0)
        return -(target * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()


def with_foretold(hidden: Tensor, changes: Tensor | None) -> Tensor:
    """Return hidden states (..., N, D) with foretold changes (..., N, E C) beside them, if any."""
    return hidden if changes is None else torch.cat((hidden, changes.to(hidden.dtype)), dim=-1)


class WorldModel(nn.Module):
    """Everything between conditions and the next frame's latent tokens."""

    change_std: Tensor

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        channels = config.autoencoder.latent_channels
        self.conditions = ConditionEncoder(
            config.conditions, width=width, grid=config.grid, latent_channels=channels
        )
        self.latent_in = nn.Linear(channels, width)
        self.places = nn.Parameter(0.02 * torch.randn(config.tokens_per_frame, width))
        self.noise_level = nn.Embedding(config.noise_buckets, width)
        nn.init.normal_(self.noise_level.weight, std=0.02)
        self.backbone = Backbone(config.backbone)
        self.head = DiffusionHead(
            config.diffusion,
            latent_channels=channels,
            hidden_width=width,
            tokens_per_frame=config.tokens_per_frame,
            num_changes=config.num_changes,
        )
        self.outcome = OutcomeHead(
            hidden_width=width, reward_limit=config.reward_limit, reward_bins=config.reward_bins
        )
        self.transport = None
        if config.transport.is_moving:
            self.transport = Transport(config.transport, grid=config.grid, channels=channels)
        self.register_buffer("change_std", torch.ones(channels))
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.backbone.num_layers))

    @property
    def positions_per_frame(self) -> int:
        """M + N: the backbone's positions per frame."""
        return self.config.conditions.num_tokens + self.config.tokens_per_frame

    def fit_transport(self, autoencoder: Autoencoder) -> None:
        """Learn from the autoencoder how its latents move; does nothing where none do."""
        if self.transport is not None:
            assert isinstance(autoencoder.decoder, CellTransform)
            self.transport.fit(autoencoder.decoder)

    def bucket(self, level: Tensor) -> Tensor:
        """Return the bucket of noise levels in [0, context_noise], the same shape, int64."""
        scaled = level / max(self.config.context_noise, 1e-6) * self.config.noise_buckets
        return scaled.long().clamp(0, self.config.noise_buckets - 1)

    def embed(
        self, context: Tensor, level: Tensor, conditions: Conditions
    ) -> tuple[Tensor, Tensor | None]:
        """Return backbone tokens (B, F, M + N, D) and what is foretold, (B, F, N, C) or None.

        Args:
            context: (B, F, N, C) latent tokens of the frame before each frame.
            level: (B, F) noise level on them.
            conditions: Of each frame.
        """
        instruction, local, foretold = self.conditions(conditions)
        latent = self.latent_in(context) + self.places + local
        latent = latent + self.noise_level(self.bucket(level))[:, :, None]
        tokens = torch.cat((instruction.to(latent.dtype), latent), dim=2)
        return tokens, foretold

    def foretold_changes(
        self,
        foretold: Tensor,
        last: Tensor,
        context: Tensor,
        *,
        phase: Tensor,
        last_phase: Tensor,
    ) -> Tensor:
        """Return correction and motions, (B, N, E C), in units of the usual change.

        Args:
            foretold: (B, N, C) of this frame.
            last: (B, N, C), what was foretold of the last frame.
            context: (B, N, C) latents of the last frame.
            phase: (B, 2) of `ConditionEncoder.camera_phase`; of use where things move.
            last_phase: (B, 2) of the last frame.
        """
        correction, residual = foretold - context, context - last
        if self.transport is None:
            motions = [correction + residual] * (self.config.num_changes - 1)
        else:
            travel = self.transport.travel(phase, last_phase)
            moved = self.transport(residual, travel).unbind(dim=1)
            motions = [correction + part for part in moved]
        std = self.change_std
        return torch.cat([change / std for change in (correction, *motions)], dim=-1)

    def hidden(self, context: Tensor, level: Tensor, conditions: Conditions) -> Tensor:
        """Return the hidden states of whole sequences, (B, F, N, Z); arguments as in `embed`."""
        tokens, foretold = self.embed(context, level, conditions)
        hidden = self.backbone(tokens.flatten(1, 2), positions_per_frame=self.positions_per_frame)
        hidden = hidden.unflatten(1, tokens.shape[1:3])[:, :, self.config.conditions.num_tokens :]
        changes = None
        if foretold is not None:
            # As an empty cache does: of the first frame, the one before it stands in.
            last = torch.cat((context[:, :1].to(foretold.dtype), foretold[:, :-1]), dim=1)
            phase = self.conditions.camera_phase(conditions)
            last_phase = torch.cat((phase[:, :1], phase[:, :-1]), dim=1)
            changes = self.foretold_changes(
                *(tensor.flatten(0, 1).float() for tensor in (foretold, last, context)),
                phase=phase.flatten(0, 1),
                last_phase=last_phase.flatten(0, 1),
            ).unflatten(0, context.shape[:2])
        return with_foretold(hidden, changes)

    def step_hidden(self, context: Tensor, conditions: Conditions, cache: KVCache) -> Tensor:
        """Return the hidden states of the present frame, (B, N, Z); writes its cache slot.

        Args:
            context: (B, N, C) latent tokens of the last frame.
            conditions: Of one frame.
            cache: Of the frames before; the caller commits it.
        """
        tokens, changes = self.step_tokens(context, conditions, cache)
        tokens = tokens.to(self.backbone.norm.weight.dtype)
        hidden = self.backbone.step(tokens, cache)[:, self.config.conditions.num_tokens :]
        return with_foretold(hidden, changes)

    def step_tokens(
        self, context: Tensor, conditions: Conditions, cache: KVCache
    ) -> tuple[Tensor, Tensor | None]:
        """Return the present frame's tokens (B, M + N, D) and foretold changes (B, N, E C) or None.

        The cache keeps what is foretold and the camera's place; arguments as in `step_hidden`.
        """
        level = context.new_full((context.shape[0], 1), self.config.play_noise)
        tokens, foretold = self.embed(context[:, None], level, conditions)
        if foretold is None:
            return tokens[:, 0], None
        now = foretold[:, 0].float()
        phase = self.conditions.camera_phase(conditions)[:, 0]
        changes = self.foretold_changes(
            now, cache.last_foretold(context), context, phase=phase, last_phase=cache.phase
        )
        cache.foretold.copy_(now)
        cache.phase.copy_(phase)
        return tokens[:, 0], changes

    def sample(
        self, context: Tensor, hidden: Tensor, noise: Tensor, *, num_denoise_steps: int
    ) -> Tensor:
        """Return the next frame's latent tokens; context, noise (B, N, C), hidden (B, N, Z)."""

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return self.head(x, sigma, hidden, context).to(noise.dtype)

        change = euler_sample(predict, noise, sigma_schedule(num_denoise_steps))
        return context + change * self.change_std

    def new_cache(self, batch_size: int, *, dtype: torch.dtype, device: torch.device) -> KVCache:
        """Return an empty cache for B games."""
        return KVCache(
            self.config.backbone,
            batch_size=batch_size,
            positions_per_frame=self.positions_per_frame,
            dtype=dtype,
            device=device,
            foretold_shape=self.config.foretold_shape,
        )

    def losses(
        self,
        latents: Tensor,
        conditions: Conditions,
        reward: Tensor,
        terminated: Tensor,
        *,
        generator: torch.Generator,
        own_context: Tensor | None = None,
        limb_error: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the named losses of sequences.

        Args:
            latents: (B, F + 1, N, C) frames 0 to F.
            conditions: Of frames 1 to F.
            reward: (B, F) of the steps that led to frames 1 to F.
            terminated: (B, F) bool, likewise.
            generator: Of every random choice, on the CPU.
            own_context: (R, F, N, C) of `own_context`: the first R sequences see these latents in
                place of the teacher's.
            limb_error: Of errors (B, F, N, C) in units of the usual change, on the limbs that maps
                (B, F, N, S) show; None: it is not counted.
        """
        device = latents.device
        batch, frames = reward.shape
        level = torch.rand(batch, frames, generator=generator) * self.config.context_noise
        # A tenth of the frames stays clean, as at play time.
        level = (level * (torch.rand(batch, frames, generator=generator) > 0.1)).to(device)
        noise = torch.randn(latents[:, 1:].shape, generator=generator).to(device)
        context = latents[:, :-1] + level[..., None, None] * noise
        if own_context is not None:
            num_own = len(own_context)
            context = torch.cat((own_context, context[num_own:]))
            # Labelled as at play time.
            own_level = torch.full_like(level[:num_own], self.config.play_noise)
            level = torch.cat((own_level, level[num_own:]))
        hidden = self.hidden(context, level, conditions)
        data = (latents[:, 1:] - context) / self.change_std

        draws = self.config.diffusion.noise_draws
        flat = data.flatten(0, 1).repeat(draws, 1, 1)
        sigma = sample_sigma(len(flat), self.config.diffusion, generator, device)
        head_noise = torch.randn(flat.shape, generator=generator).to(device)
        noisy = (1 - sigma)[:, None, None] * flat + sigma[:, None, None] * head_noise
        predicted = self.head(
            noisy,
            sigma,
            hidden.flatten(0, 1).repeat(draws, 1, 1),
            context.flatten(0, 1).repeat(draws, 1, 1),
        )
        reward_logits, termination_logits = self.outcome(hidden)
        losses = {
            "head": head_loss(predicted, flat, sigma),
            "reward": self.outcome.reward_loss(reward_logits, reward),
            "termination": nn.functional.binary_cross_entropy_with_logits(
                termination_logits.float(), terminated.float()
            ),
        }
        if limb_error is not None:
            error = (predicted - flat).float() * ramp_weight(sigma).sqrt()[:, None, None]
            maps = self.conditions.limb_maps(conditions).repeat(draws, 1, 1, 1)
            losses["limbs"] = limb_error(error.unflatten(0, maps.shape[:2]), maps)
        return losses

    @torch.no_grad()
    def own_context(
        self, first: Tensor, conditions: Conditions, generator: torch.Generator
    ) -> Tensor:
        """Return frames 0 to F - 1 of the model's own rollout, (B, F, N, C).

        Trained on these with the teacher's frames as targets, the model learns the way back from
        where it drifts (Self Forcing, arXiv 2506.08009, with the loss on single frames).

        Args:
            first: (B, N, C) latents of frame 0.
            conditions: Of frames 1 to F.
            generator: Of the head's noise, on the CPU.
        """
        frames = conditions.pose.shape[1]
        dtype = torch.get_autocast_dtype(first.device.type)
        is_mixed = torch.is_autocast_enabled(first.device.type)
        cache = self.new_cache(
            len(first), dtype=dtype if is_mixed else first.dtype, device=first.device
        )
        last = first
        made = [last]
        for frame in range(frames - 1):
            hidden = self.step_hidden(last, conditions.frames(frame, frame + 1), cache)
            cache.commit()
            noise = sample_noise(last.shape, self.config.diffusion, generator).to(last.device)
            last = self.sample(last, hidden, noise, num_denoise_steps=OWN_DENOISE_STEPS).float()
            made.append(last)
        # Weights that autocast cast without gradient must not be met by the pass with gradient.
        torch.clear_autocast_cache()
        return torch.stack(made, dim=1)
