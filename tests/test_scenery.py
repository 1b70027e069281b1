"""The scenery memory: which place and phase is looked up, and how sceneries mix."""

import pytest
import torch
from torch import Tensor

from midas_world.config import LayerConfig, SceneryConfig
from midas_world.model.scenery import Scenery, SceneryLayer

GRID, STEP = (3, 5), 8
LAYER = LayerConfig(parallax=0.5, loop=64, phases=4, slots=2, resolution=8, channels=3)
FINE = LayerConfig(parallax=0.5, loop=64, slots=2, resolution=1, channels=2)


def make_layer(config: LayerConfig = LAYER) -> SceneryLayer:
    layer = SceneryLayer(config, word_width=6, grid=GRID, downsampling=STEP)
    return layer.requires_grad_(requires_grad=False)


def words(seed: int = 0) -> Tensor:
    return torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))


def table_of(layer: SceneryLayer, *, phase: int = 0) -> Tensor:
    """Return the picture that the words of seed 0 find, (channels, rows, columns of the loop)."""
    mixture = layer.slots(words()).softmax(dim=1)[0]
    table = layer.table.unflatten(0, (-1, layer.num_columns))[phase]
    mixed = torch.einsum("s,xsr->xr", mixture, table.unflatten(1, (len(mixture), -1)))
    return mixed.unflatten(1, (layer.size[0], -1)).permute(2, 1, 0)


def look(layer: SceneryLayer, camera: float, clock: float = 0.0, *, seed: int = 0) -> Tensor:
    """Return what a layer shows of one game, (channels, h, w)."""
    return layer(words(seed), torch.tensor([camera]), torch.tensor([clock]))[0]


@pytest.mark.parametrize("camera", [0.0, 7.0, 61.0])
def test_a_lookup_is_periodic_in_loop_and_clock(camera):
    layer = make_layer()
    whole = LAYER.loop / LAYER.parallax
    shown = look(layer, camera, 0.3)
    torch.testing.assert_close(look(layer, camera + whole, 0.3), shown)
    torch.testing.assert_close(look(layer, camera, 1.3), shown)
    torch.testing.assert_close(look(layer, camera, 0.45), shown)  # the same phase
    assert (look(layer, camera + 40, 0.3) - shown).abs().max() > 0.01
    assert (look(layer, camera, 0.55) - shown).abs().max() > 0.01


def test_at_whole_columns_a_lookup_is_the_mixed_table():
    layer = make_layer()
    # The picture's middle stands at 28 px of the layer; its left edge, 20 px before, at column 1.
    shown = look(layer, 56.0, clock=0.5)
    expected = table_of(layer, phase=2)[:, :, 1 : 1 + GRID[1]]
    torch.testing.assert_close(shown, expected, rtol=1e-5, atol=1e-5)


def test_between_columns_a_lookup_is_the_mean_by_distance():
    layer = make_layer()
    # A column is 8 px, 16 px of the camera's way; the left edge stands at a column at 8.
    first, second = look(layer, 8.0), look(layer, 24.0)
    torch.testing.assert_close(first[:, :, 1:], second[:, :, :-1])
    torch.testing.assert_close(look(layer, 12.0), torch.lerp(first, second, 0.25))


@pytest.mark.parametrize("px", range(0, 64, 5))
def test_a_table_of_pixels_is_shown_shifted_by_whole_px(px):
    layer = make_layer(FINE)
    assert layer.num_channels == 2 * STEP**2
    shown = look(layer, px / FINE.parallax)
    # Pixels, of the blocks that latents are of.
    pixels = torch.nn.functional.pixel_shuffle(shown, STEP)
    left = px - GRID[1] * STEP // 2
    columns = torch.arange(left, left + GRID[1] * STEP) % FINE.loop
    expected = table_of(layer)[:, :, columns]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)
    # A share of the loop is not exact.
    for nearly in (-2e-4, 2e-4):
        assert torch.equal(look(layer, px / FINE.parallax + nearly), shown)


def make_scenery(layers: dict[str, LayerConfig], *, thing_channels: int = 0) -> Scenery:
    sizes = {"word_width": 6, "phase_size": 4, "latent_channels": 5}
    config = SceneryConfig(width=8, layers=layers)
    made = Scenery(config, **sizes, thing_channels=thing_channels, grid=GRID, downsampling=STEP)
    return made.requires_grad_(requires_grad=False)


def paint(
    scenery: Scenery, camera: float = 3.0, *, seed: int = 0, things: Tensor | None = None
) -> Tensor:
    """Return the latents painted for one game, (c, h, w)."""
    place = torch.tensor([camera]), torch.tensor([0.0])
    things = torch.zeros(1, 0, *GRID) if things is None else things
    return scenery(words(seed), *place, torch.zeros(1, 4), things)[0]


def test_what_is_painted_hangs_on_every_layer_and_on_words():
    layers = {"near": LAYER, "far": LayerConfig(parallax=0.25, loop=64, channels=2), "fine": FINE}
    scenery = make_scenery(layers)
    shown = paint(scenery)
    assert shown.shape == (5, *GRID)
    assert shown.dtype == torch.float32
    assert (paint(scenery, seed=1) - shown).abs().max() > 1e-3
    for layer in scenery.layers:
        kept = layer.table.clone()
        layer.table.zero_()
        assert (paint(scenery) - shown).abs().max() > 1e-3
        layer.table.copy_(kept)


@pytest.mark.parametrize("layers", [{"near": LAYER}, {}])
def test_things_are_painted_where_they_are(layers):
    scenery = make_scenery(layers, thing_channels=2)
    none, things = torch.zeros(1, 2, *GRID), torch.zeros(1, 2, *GRID)
    things[0, 1, 1, 0] = 3.0
    change = (paint(scenery, things=things) - paint(scenery, things=none)).abs().amax(dim=0)
    assert change.argmax() == 1 * GRID[1] + 0
    assert change[1, 0] > 1e-2
