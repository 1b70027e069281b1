"""What a step brings: reward, a hit, the end.

Told by the fates of codes, where there are codes, and by what changed around the character.

Shapes: B batch, c latent channels, h w fine grid, D backbone width, V size of the head's vector.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.model.head import Guidance
from midas_world.model.layers import mlp


def first_copy(guidance: Guidance) -> Tensor:
    """Return the last frame's latents as they moved with the camera, (B, c, h, w)."""
    return guidance.copies[:, 0] if guidance.copies.shape[1] else guidance.last


class OutcomeHead(nn.Module):
    """Reward, cost and termination, by codes' fates and by what changed around the character.

    Args:
        width: Of the network that reads the latter from latents and hidden states; 0: none does.
        latent_channels: c.
        fate_size: Of what fates tell.
        hidden_width: D.
        vector_size: V.
        reward_limit: Rewards are told on a symlog scale up to this size.
        reward_bins: Bins of that scale.
    """

    bins: Tensor

    def __init__(
        self,
        *,
        width: int,
        latent_channels: int,
        fate_size: int,
        hidden_width: int,
        vector_size: int,
        reward_limit: float,
        reward_bins: int,
    ) -> None:
        super().__init__()
        self.width = width
        self.fates = nn.Linear(fate_size, reward_bins + 2)
        if width:
            self.input = nn.Conv2d(3 * latent_channels, width, 1)
            self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
            self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
            self.trunk = mlp(2 * width + hidden_width + vector_size, 128, reward_bins + 2)
            for parameter in self.trunk[-1].parameters():
                nn.init.zeros_(parameter)
        limit = math.log1p(reward_limit)
        self.register_buffer("bins", torch.linspace(-limit, limit, reward_bins), persistent=False)

    @staticmethod
    def split(out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of reward, cost and termination of (B, bins + 2)."""
        out = out.float()
        return out[:, :-2], out[:, -2], out[:, -1]

    def forward(
        self, made: Tensor, guidance: Guidance, near: Tensor, told: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return reward logits (B, bins), cost logits (B,) and termination logits (B,).

        Args:
            made: (B, c, h, w) latents of the new frame.
            guidance: That it was made with.
            near: (B, 1, h, w) in [0, 1], where the character is.
            told: (B, fate_size) by the fates of codes.
        """
        if not self.width:
            return self.split(self.fates(told))
        x = torch.cat((made, guidance.last, first_copy(guidance)), dim=1)
        x = self.input(x.contiguous(memory_format=torch.channels_last))
        x = functional.relu(x + self.conv_1(functional.relu(x)))
        x = functional.relu(self.conv_2(x)) * near.to(x.dtype)
        pooled = (x.amax(dim=(2, 3)), x.mean(dim=(2, 3)), guidance.hidden.mean(dim=1))
        out = self.trunk(torch.cat((*pooled, guidance.vector.to(x.dtype)), dim=1)).float()
        return self.split(out + self.fates(told))

    def reward(self, logits: Tensor) -> Tensor:
        """Return the expected reward of logits (..., bins)."""
        mean = (logits.float().softmax(dim=-1) * self.bins).sum(dim=-1)
        return mean.sign() * (mean.abs().exp() - 1.0)

    def reward_loss(self, logits: Tensor, reward: Tensor) -> Tensor:
        """Return cross entropy with the two-hot target (Hafner et al. 2023, eq. 9), (B,)."""
        symlog = reward.sign() * reward.abs().log1p()
        step = self.bins[1] - self.bins[0]
        place = ((symlog.clamp(self.bins[0], self.bins[-1]) - self.bins[0]) / step)[..., None]
        index = torch.arange(len(self.bins), device=reward.device)
        target = (1.0 - (place - index).abs()).clamp_min(0.0)
        return -(target * logits.float().log_softmax(dim=-1)).sum(dim=-1)
