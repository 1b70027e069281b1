"""The config of the autoencoder, which needs more checks than all others."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from midas_world.config.limits import MOST_DEPTH, MOST_STAGES, check_range


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A deep-compression autoencoder (Chen et al. 2024, arXiv 2410.10733).

    Attributes:
        widths: Channels of each stage, from the finest to the coarsest.
        encoder_depths: Blocks of each encoder stage; as many entries as ``widths``.
        decoder_depths: Blocks of each decoder stage, listed from the finest too.
        latent_channels: C.
        patch_size: Pixel-unshuffle in front of the first stage (1: none).
        block_types: One of "plain" (ours: no norms), "pre_norm" (group norm before each
            convolution), "res" and "efficient_vit" (the published DC-AE blocks) for each stage.
            The finest stage's type also decides how pixels come in and go out.
        latent_norm: Scale each latent token to unit RMS over its channels before the noise.
        latent_noise: Standard deviation of the noise added to latents while training.
        attention_head_dim: Of "efficient_vit" blocks.
        attention_scales: Kernel sizes of their further queries, keys and values; () for none.
        decoder_norms: "rms_norm" (where empty) or "batch_norm" of each decoder stage's published
            blocks; those of the encoder are always rms_norm.
        decoder_activations: "silu" (where empty) or "relu" of each decoder stage's "res" blocks.
        decoder_out_activation: Before the published decoders' last convolution.
        downsample_type: Halve by pixel-unshuffle after a convolution, or by a strided one.
        upsample_type: Double by pixel-shuffle after a convolution, or by nearest before one.
        encoder_out_shortcut: Add averaged channels to the encoder's last convolution.
        decoder_in_shortcut: Add repeated channels to the decoder's first convolution.
    """

    widths: tuple[int, ...]
    encoder_depths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    latent_channels: int = 128
    patch_size: int = 4
    block_types: tuple[str, ...] = ()
    latent_norm: bool = True
    latent_noise: float = 0.1
    attention_head_dim: int = 32
    attention_scales: tuple[int, ...] = ()
    decoder_norms: tuple[str, ...] = ()
    decoder_activations: tuple[str, ...] = ()
    decoder_out_activation: Literal["relu", "silu"] = "relu"
    downsample_type: Literal["pixel_unshuffle", "conv"] = "pixel_unshuffle"
    upsample_type: Literal["pixel_shuffle", "interpolate"] = "pixel_shuffle"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True

    def __post_init__(self) -> None:
        """Check the limits that the modules rely on."""
        stages = len(self.widths)
        if not stages:
            raise ValueError("widths must have an entry for each stage")
        check_range(self, "widths", "latent_channels", "attention_head_dim")
        check_range(self, "encoder_depths", "decoder_depths", least=0, most=MOST_DEPTH)
        check_range(self, "patch_size", "attention_scales", most=64)
        if stages > MOST_STAGES:
            raise ValueError(f"widths must have at most {MOST_STAGES} entries, got {stages}")
        for name in ("encoder_depths", "decoder_depths"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"{name} must have one entry per width ({stages}), got {getattr(self, name)}"
                )
        for name, allowed in (
            ("block_types", ("plain", "pre_norm", "res", "efficient_vit")),
            ("decoder_norms", ("rms_norm", "batch_norm")),
            ("decoder_activations", ("silu", "relu")),
        ):
            given = getattr(self, name)
            if given and len(given) != stages:
                raise ValueError(f"{name} must have {stages} entries, got {given}")
            for item in given:
                if item not in allowed:
                    raise ValueError(f"{name} must be of {', '.join(allowed)}, got {item!r}")
        for fine, coarse in pairwise(self.widths):
            if 4 * fine % coarse or coarse % 4:
                raise ValueError(
                    f"each of widths must be a multiple of 4 that divides four times the one "
                    f"before, got {self.widths}"
                )
        shortcut = self.encoder_out_shortcut or self.decoder_in_shortcut
        if shortcut and self.widths[-1] % self.latent_channels:
            raise ValueError(
                f"the last of widths must be a multiple of latent_channels "
                f"{self.latent_channels} for the shortcuts, got {self.widths[-1]}"
            )

    @property
    def downsampling(self) -> int:
        """Pixels per latent token and side."""
        return self.patch_size * 2 ** (len(self.widths) - 1)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block type of each stage."""
        return self.block_types or ("pre_norm",) * len(self.widths)

    def first_stage(self, depths: tuple[int, ...]) -> int:
        """Return the finest stage that is there: 1 where a published layout has no block in 0.

        The convolution next to the pixels then halves or doubles the resolution itself.
        """
        is_empty = self.blocks[0] in ("res", "efficient_vit") and len(depths) > 1 and not depths[0]
        return int(is_empty)
