import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.config import PRESETS_FOLDER, WorldConfig, load_preset
from midas_world.model.autoencoder import (
    Autoencoder,
    normalize_frames,
    quantize_frames,
    to_grid,
    to_tokens,
)
from midas_world.model.dc_blocks import LinearAttention
from midas_world.model.world_model import WorldModel
from midas_world.train.loop import seeded_weights
from tests.fakes import randn


@cache
def preset(name: str) -> WorldConfig:
    return load_preset(name).world


def autoencoder(**changes: object) -> Autoencoder:
    return Autoencoder(dataclasses.replace(preset("tiny").autoencoder, **changes)).eval()


@settings(deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(1, 9), width=st.integers(1, 9))
def test_frames_come_back_exactly_from_normalise_and_quantise(seed, height, width):
    frames = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    normal = normalize_frames(torch.from_numpy(frames))
    assert normal.dtype == torch.float32
    assert normal.shape == (2, 3, height, width)
    assert normal.abs().max() <= 1.0
    assert np.array_equal(quantize_frames(normal).numpy(), frames)


def test_tokens_and_grid_are_inverse_and_in_reading_order():
    latents = randn(2, 4, 3, 5)
    tokens = to_tokens(latents)
    assert tokens.shape == (2, 15, 4)
    assert torch.equal(to_grid(tokens, (3, 5)), latents)
    assert torch.equal(tokens[0, 7], latents[0, :, 1, 2])


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml")))
def test_every_preset_encodes_to_its_grid_and_decodes_to_its_picture(name):
    config = preset(name)
    with torch.device("meta"):
        model = Autoencoder(config.autoencoder)
        latents = model.encode(torch.zeros(2, 3, config.height, config.width))
        assert latents.shape == (2, config.autoencoder.latent_channels, *config.grid)
        assert model.decode(latents).shape == (2, 3, config.height, config.width)


def test_the_paper_preset_has_the_papers_sizes():
    with torch.device("meta"):
        model = WorldModel(preset("paper"))

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    # Qwen2.5-3B has 2.77 billion weights beside its words.
    assert 2.7e9 < count(model.backbone) < 2.8e9
    assert 0.45e9 < count(model.head) < 0.55e9
    assert preset("paper").tokens_per_frame == 60
    assert preset("paper").autoencoder.downsampling == 64


def test_statistics_standardise_each_channel_and_decode_undoes_them():
    model = autoencoder()
    frames = randn(8, 3, 48, 80)
    with torch.no_grad():
        raw = model.encode_raw(frames)
        model.set_statistics(raw)
        standard = model.encode(frames)
        torch.testing.assert_close(standard.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(standard.std(dim=(0, 2, 3)), torch.ones(8), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            model.decode(standard), model.decode_raw(raw), rtol=1e-4, atol=1e-4
        )


def test_linear_attention_stays_in_float32_under_autocast():
    # Not any weights: a denominator near 0 makes much of the convolutions' own rounding.
    with seeded_weights(1):
        layer = LinearAttention(8, norm="rms_norm", head_dim=4, scales=(3,)).requires_grad_(False)
    x = 0.1 * randn(1, 8, 4, 4)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=5e-2, atol=5e-2)
