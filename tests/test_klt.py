import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from midas_world.autoencoder import Autoencoder, normalize_frames
from midas_world.checkpoint import compress, expand, load_tensors
from midas_world.config import AutoencoderConfig, ProjectConfig, load_preset
from midas_world.klt import CellTransform
from midas_world.train.autoencoder import load_autoencoder, train_autoencoder
from midas_world.train.dynamics import head_units, train_dynamics
from midas_world.train.latents import encoder_hash
from midas_world.train.loop import seeded_weights
from tests.training import CPU, tiny

ROWS, COLUMNS, SIDE, CHANNELS = 2, 3, 8, 12
SIZE = 3 * SIDE * SIDE


def draw_frames(count: int, *, seed: int = 0, rank: int = 40) -> Tensor:
    """Return frames (B, 3, H, W) uint8 whose cells mix a row's own random pictures."""
    rng = np.random.default_rng(seed)
    pictures = np.random.default_rng(99).normal(size=(ROWS, rank, SIZE)) / SIZE**0.5
    strength = 400.0 * 0.8 ** np.arange(rank)
    mixed = rng.normal(size=(count, ROWS, COLUMNS, rank)) * strength
    cells = 128.0 + np.einsum("brck,rkp->brcp", mixed, pictures)
    cells = cells.clip(0, 255).round().astype(np.uint8)
    cells = cells.reshape(count, ROWS, COLUMNS, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2, 5)
    return torch.from_numpy(cells.reshape(count, 3, ROWS * SIDE, COLUMNS * SIDE))


def fitted(channels: int = CHANNELS) -> CellTransform:
    transform = CellTransform(ROWS, channels, SIDE)
    with seeded_weights(0):
        transform.fit(draw_frames(600))
    return transform


def normal(frames: Tensor) -> Tensor:
    return normalize_frames(frames.permute(0, 2, 3, 1))


def cells_of(frames: Tensor) -> Tensor:
    """(B, 3, H, W) -> (h, B * w, P), by loops."""
    return torch.stack(
        [
            torch.stack(
                [
                    frame[:, r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE].flatten()
                    for frame in frames
                    for c in range(COLUMNS)
                ]
            )
            for r in range(ROWS)
        ]
    )


def test_no_linear_code_of_as_many_numbers_keeps_more():
    transform, frames = fitted(), normal(draw_frames(600))
    lost = (transform(transform.analyze(frames)) - frames).square().sum()
    cells = cells_of(frames)
    centred = cells - cells.mean(dim=1, keepdim=True)
    least = torch.linalg.svdvals(centred)[:, CHANNELS:].square().sum()
    assert least * 0.999 <= lost <= least * 1.01
    # It is not trivial: less than half of what varies is lost, and something is.
    assert 0 < lost < 0.5 * centred.square().sum()


def test_a_basis_as_large_as_a_cell_gives_frames_back_exactly():
    frames = normal(draw_frames(600))
    transform = fitted(SIZE)
    assert (transform(transform.analyze(frames)) - frames).abs().max() < 1e-3


def test_cells_are_where_they_were_in_the_frame():
    transform = fitted()
    frames = normal(draw_frames(4, seed=1))
    whole = transform.analyze(frames)
    assert whole.shape == (4, CHANNELS, ROWS, COLUMNS)
    other = frames.clone()
    other[:, :, SIDE:, SIDE : 2 * SIDE] = 0.3  # the cell in row 1, column 1
    changed = (transform.analyze(other) - whole).abs().amax(dim=(0, 1)) > 1e-4
    assert changed.tolist() == [[False] * 3, [False, True, False]]
    moved = (transform(transform.analyze(other)) - transform(whole)).abs().amax(dim=(0, 1)) > 1e-4
    assert moved[SIDE:, SIDE : 2 * SIDE].any()
    moved[SIDE:, SIDE : 2 * SIDE] = False
    assert not moved.any()


def test_each_row_of_cells_has_its_own_orthonormal_basis():
    transform = fitted()
    first, second = transform.basis.view(ROWS, CHANNELS, SIZE)
    for basis in (first, second):
        torch.testing.assert_close(basis @ basis.T, torch.eye(CHANNELS), atol=1e-4, rtol=0.0)
    # How much of one row's directions the other's have: all would be CHANNELS.
    assert (first @ second.T).square().sum() < 0.5 * CHANNELS


def test_coefficients_have_unit_power_spread_by_the_fourth_root_of_variance():
    transform, frames = fitted(), normal(draw_frames(600))
    latents = transform.analyze(frames)
    assert latents.square().mean().item() == pytest.approx(1.0, abs=0.02)
    variance = (latents / transform.gain.view(ROWS, CHANNELS).T[..., None]).var(dim=(0, 3))
    spread = latents.var(dim=(0, 3)) / variance.sqrt()
    torch.testing.assert_close(spread, spread.mean().expand_as(spread), rtol=0.02, atol=0.0)


def test_directions_that_the_frames_do_not_have_stay_zero():
    transform = CellTransform(ROWS, CHANNELS, SIDE)
    transform.fit(draw_frames(2))  # six cells a row
    norms = transform.basis.view(ROWS, CHANNELS, SIZE).norm(dim=2)
    assert (norms[:, :5] > 0.99).all()
    assert (norms[:, 6:] == 0.0).all()
    assert transform.analyze(normal(draw_frames(1))).isfinite().all()


def test_it_loses_little_as_eight_bit_numbers_and_in_bfloat16():
    transform, frames = fitted(), normal(draw_frames(50, seed=3))
    lost = (transform(transform.analyze(frames)) - frames).square().mean()
    stored = CellTransform(ROWS, CHANNELS, SIDE)
    stored.load_state_dict(expand(compress(transform.state_dict())))
    short = CellTransform(ROWS, CHANNELS, SIDE).bfloat16()
    short.load_state_dict(transform.state_dict())
    for other in (stored, short):
        dtype = other.basis.dtype
        made = other(other.analyze(frames).to(dtype)).float()
        assert (made - frames).square().mean() < 1.05 * lost


def linear_config(*overrides: str) -> ProjectConfig:
    coder = {"widths": "[]", "encoder_depths": "[]", "decoder_depths": "[]", "patch_size": 16}
    coder |= {"latent_channels": 6, "transform_rows": 3}
    return tiny(*(f"world.autoencoder.{k}={v}" for k, v in coder.items()), *overrides)


def test_it_takes_the_place_of_training_and_is_found_once(data, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = train_autoencoder(linear_config(), data, tmp_path / "one", device=CPU)
    again = train_autoencoder(linear_config(), data, tmp_path / "two", device=CPU)
    first, second = (load_tensors(path / "weights.safetensors") for path in (folder, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert (folder / "strips" / "autoencoder-0000000.png").is_file()
    assert "held-out frames" in caplog.text
    written = (folder / "weights.safetensors").stat().st_mtime_ns
    train_autoencoder(linear_config(), data, tmp_path / "one", device=CPU)
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written
    assert "found before" in caplog.text
    coder = load_autoencoder(folder, linear_config())
    latents = coder.encode(torch.zeros(2, 3, 48, 80))
    assert latents.shape == (2, 6, 3, 5)
    assert coder.decode(latents).shape == (2, 3, 48, 80)


def test_dynamics_learn_on_its_latents_in_units_of_the_picture(data, tmp_path):
    config = linear_config("train_dynamics.optimizer.train_steps=2")
    folder = train_autoencoder(config, data, tmp_path / "autoencoder", device=CPU)
    coder = load_autoencoder(folder, config)
    change = torch.linspace(0.1, 1.0, 6)
    units = head_units(change, coder)
    assert isinstance(coder.decoder, CellTransform)
    worth = coder.decoder.worth() * coder.latent_std
    torch.testing.assert_close(units * worth, (units * worth)[:1].expand(6))
    assert (change / units).square().mean().item() == pytest.approx(1.0, rel=1e-4)
    train_dynamics(config, data, tmp_path / "dynamics", autoencoder=folder, device=CPU)
    trained = load_tensors(tmp_path / "dynamics" / "weights.safetensors")
    units = trained["change_std"]
    torch.testing.assert_close(units * worth, (units * worth)[:1].expand(6))


def test_a_unit_of_a_channel_is_worth_what_it_changes_in_the_picture():
    transform = fitted()
    frames = transform(torch.zeros(1, CHANNELS, ROWS, COLUMNS))
    for channel in (0, 5, 11):
        latents = torch.zeros(1, CHANNELS, ROWS, COLUMNS)
        latents[:, channel] = 1.0
        change = (transform(latents) - frames)[0]  # (3, H, W)
        by_row = change.unflatten(1, (ROWS, SIDE)).square().sum(dim=(0, 2, 3)) / COLUMNS
        assert by_row.sqrt().mean().item() == pytest.approx(
            transform.worth()[channel].item(), rel=1e-3
        )


def test_the_standardisation_keeps_the_channels_proportions(data, tmp_path):
    folder = train_autoencoder(linear_config(), data, tmp_path / "autoencoder", device=CPU)
    coder = load_autoencoder(folder, linear_config())
    assert (coder.latent_std == coder.latent_std[0]).all()


def test_latents_belong_to_the_transform_that_made_them():
    settings = linear_config().world.autoencoder
    first, second = Autoencoder(settings), Autoencoder(settings)
    second.load_state_dict(first.state_dict())
    assert encoder_hash(first) == encoder_hash(second)
    with torch.no_grad():
        second.decoder.get_parameter("basis")[0, 0] += 1.0
    assert encoder_hash(first) != encoder_hash(second)


def test_a_config_that_wants_both_or_neither_is_refused():
    with pytest.raises(ValueError, match="either widths, of its networks, or transform_rows"):
        AutoencoderConfig()
    settings = load_preset("tiny").world.autoencoder
    with pytest.raises(ValueError, match="either widths"):
        dataclasses.replace(settings, transform_rows=3)
    with pytest.raises(ValueError, match=r"rows of the latent grid, 3, got 2"):
        linear_config("world.autoencoder.transform_rows=2")
