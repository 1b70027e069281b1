"""The deep-compression autoencoder: frames to latents and back.

After DC-AE (Chen et al. 2024, arXiv 2410.10733): space-to-channel shortcuts around every change of
resolution ("residual autoencoding"). Knows nothing of time, conditions or dynamics.

Shapes: B batch, C latent channels, H W pixels, h w latent grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import AutoencoderConfig
from midas_world.model.dc_blocks import ChannelRMSNorm, EfficientViTBlock, ResBlock, activation_of


class PreNormBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the last convolution starting at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(1, width // 32)
        self.norm_1 = nn.GroupNorm(groups, width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm_2 = nn.GroupNorm(groups, width)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_2.weight)
        nn.init.zeros_(self.conv_2.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        hidden = self.conv_1(functional.silu(self.norm_1(x)))
        return x + self.conv_2(functional.silu(self.norm_2(hidden)))


class PlainBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), without norms: cheap, and exact in eight bits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv_2.weight.mul_(0.2)
            self.conv_2.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        return x + self.conv_2(functional.relu(self.conv_1(functional.relu(x))))


def channel_mean(x: Tensor, channels: int) -> Tensor:
    """Average groups of neighbouring channels, (B, g * channels, h, w) -> (B, channels, h, w)."""
    return x.unflatten(1, (channels, -1)).mean(dim=2)


class Downsample(nn.Module):
    """Halve the resolution; the shortcut is pixel-unshuffle and the mean of channel groups."""

    def __init__(
        self, width: int, next_width: int, *, kind: str = "pixel_unshuffle", shortcut: bool = True
    ) -> None:
        super().__init__()
        self.unshuffles = kind == "pixel_unshuffle"
        self.shortcut = shortcut
        self.next_width = next_width
        if self.unshuffles:
            self.conv = nn.Conv2d(width, next_width // 4, 3, padding=1)
        else:
            self.conv = nn.Conv2d(width, next_width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, next_width, h / 2, w / 2)."""
        out = functional.pixel_unshuffle(self.conv(x), 2) if self.unshuffles else self.conv(x)
        if not self.shortcut:
            return out
        return out + channel_mean(functional.pixel_unshuffle(x, 2), self.next_width)


class Upsample(nn.Module):
    """Double the resolution; the shortcut is duplicated channels and pixel-shuffle."""

    def __init__(
        self, width: int, next_width: int, *, kind: str = "pixel_shuffle", shortcut: bool = True
    ) -> None:
        super().__init__()
        self.shuffles = kind == "pixel_shuffle"
        self.shortcut = shortcut
        self.repeats = 4 * next_width // width
        channels = 4 * next_width if self.shuffles else next_width
        self.conv = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, next_width, 2h, 2w)."""
        if self.shuffles:
            out = functional.pixel_shuffle(self.conv(x), 2)
        else:
            out = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        if not self.shortcut:
            return out
        return out + functional.pixel_shuffle(x.repeat_interleave(self.repeats, dim=1), 2)


class Encoder(nn.Module):
    """Frames to raw latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths, kind = config.widths, config.encoder_depths, config.downsample_type
        channels = 3 * config.patch_size**2
        first = config.first_stage(depths)
        self.conv_in = (
            Downsample(channels, widths[1], kind=kind, shortcut=False)
            if first
            else nn.Conv2d(channels, widths[0], 3, padding=1)
        )
        layers: list[nn.Module] = []
        for index in range(first, len(widths)):
            layers += [_block(config, index) for _ in range(depths[index])]
            if index + 1 < len(widths):
                layers.append(Downsample(widths[index], widths[index + 1], kind=kind))
        self.layers = nn.Sequential(*layers)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w)."""
        x = self.layers(self.conv_in(functional.pixel_unshuffle(frames, self.config.patch_size)))
        if not self.config.encoder_out_shortcut:
            return self.conv_out(x)
        return self.conv_out(x) + channel_mean(x, self.config.latent_channels)


class Decoder(nn.Module):
    """Raw latents to frames."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths, kind = config.widths, config.decoder_depths, config.upsample_type
        norms = config.decoder_norms or ("rms_norm",) * len(widths)
        activations = config.decoder_activations or ("silu",) * len(widths)
        channels = 3 * config.patch_size**2
        first = config.first_stage(depths)
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.repeats = widths[-1] // config.latent_channels
        layers: list[nn.Module] = []
        for index in reversed(range(first, len(widths))):
            layers += [
                _block(config, index, norm=norms[index], activation=activations[index])
                for _ in range(depths[index])
            ]
            if index > first:
                layers.append(Upsample(widths[index], widths[index - 1], kind=kind))
        self.layers = nn.Sequential(*layers)
        if config.blocks[0] == "plain":
            self.norm_out, self.activation = nn.Identity(), activation_of("relu")
        elif config.blocks[0] == "pre_norm":
            self.norm_out = nn.GroupNorm(max(1, widths[0] // 32), widths[0])
            self.activation = activation_of("silu")
        else:
            self.norm_out = ChannelRMSNorm(widths[first])
            self.activation = activation_of(config.decoder_out_activation)
        self.conv_out = (
            Upsample(widths[first], channels, kind=kind, shortcut=False)
            if first
            else nn.Conv2d(widths[0], channels, 3, padding=1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), about [-1, 1]."""
        x = self.conv_in(latents)
        if self.config.decoder_in_shortcut:
            x = x + latents.repeat_interleave(self.repeats, dim=1)
        x = self.conv_out(self.activation(self.norm_out(self.layers(x))))
        return functional.pixel_shuffle(x, self.config.patch_size)


def _block(
    config: AutoencoderConfig, stage: int, *, norm: str = "rms_norm", activation: str = "silu"
) -> nn.Module:
    """Return a new block of a stage."""
    width = config.widths[stage]
    match config.blocks[stage]:
        case "res":
            return ResBlock(width, norm=norm, activation=activation)
        case "efficient_vit":
            return EfficientViTBlock(
                width, norm=norm, head_dim=config.attention_head_dim, scales=config.attention_scales
            )
        case "plain":
            return PlainBlock(width)
        case _:
            return PreNormBlock(width)


class Autoencoder(nn.Module):
    """Encode frames to latents standardised per channel, and decode them.

    The mean and standard deviation of the raw latents are buffers, measured on training frames by
    `set_statistics`; until then they are 0 and 1.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode_raw(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latents before standardisation, (B, C, h, w)."""
        latents = self.encoder(frames)
        if self.config.latent_norm:
            latents = latents * latents.square().mean(dim=1, keepdim=True).add(1e-6).rsqrt()
        return latents

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Latents before standardisation (B, C, h, w) -> (B, 3, H, W), about [-1, 1]."""
        return self.decoder(latents)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> standardised latents (B, C, h, w)."""
        mean, std = self.latent_mean[:, None, None], self.latent_std[:, None, None]
        return (self.encode_raw(frames) - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents (B, C, h, w) -> (B, 3, H, W), about [-1, 1]."""
        mean, std = self.latent_mean[:, None, None], self.latent_std[:, None, None]
        return self.decode_raw((latents * std + mean).to(latents.dtype))

    def set_statistics(self, raw_latents: Tensor) -> None:
        """Change the standardisation to that of raw latents (B, C, h, w)."""
        std, mean = torch.std_mean(raw_latents.float(), dim=(0, 2, 3))
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std.clamp_min(1e-3))


def to_tokens(latents: Tensor, block: int = 1) -> Tensor:
    """Fold blocks of the fine grid into tokens, (B, c, h, w) -> (B, N, c * block^2).

    Space to channels, the step that DC-AE itself is built of (arXiv 2410.10733); rows of tokens
    come one after another.
    """
    return functional.pixel_unshuffle(latents, block).flatten(2).transpose(1, 2)


def to_grid(tokens: Tensor, token_grid: tuple[int, int], block: int = 1) -> Tensor:
    """Undo `to_tokens`, (B, N, c * block^2) -> (B, c, h, w)."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, token_grid), block)


def normalize_frames(frames: Tensor) -> Tensor:
    """uint8 frames (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def quantize_frames(frames: Tensor) -> Tensor:
    """Float frames (B, 3, H, W), about [-1, 1] -> uint8 (B, H, W, 3). The one place for it."""
    return (
        ((frames.float() + 1.0) * 127.5)
        .round()
        .clamp(0.0, 255.0)
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
    )
