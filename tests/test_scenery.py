"""The scenery memory: which place and phase is looked up, and how sceneries mix."""

import pytest
import torch
from torch import Tensor

from midas_world.config import LayerConfig, SceneryConfig
from midas_world.model.scenery import Scenery, SceneryLayer

GRID, STEP = (3, 5), 8
LAYER = LayerConfig(parallax=0.5, loop=64, phases=4, slots=2, channels=3)


def make_layer(config: LayerConfig = LAYER) -> SceneryLayer:
    layer = SceneryLayer(config, word_width=6, grid=GRID, downsampling=STEP)
    return layer.requires_grad_(requires_grad=False)


def words(seed: int = 0) -> Tensor:
    return torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))


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
    mixture = layer.slots(words()).softmax(dim=1)[0]
    for column in range(GRID[1]):
        rows = layer.table[:, 2, 1 + column]
        expected = (mixture[:, None] * rows).sum(dim=0).unflatten(0, (GRID[0], LAYER.channels))
        torch.testing.assert_close(shown[:, :, column], expected.T, rtol=1e-5, atol=1e-5)


def test_between_columns_a_lookup_is_the_mean_by_distance():
    layer = make_layer()
    # A column is 8 px, 16 px of the camera's way; the left edge stands at a column at 8.
    first, second = look(layer, 8.0), look(layer, 24.0)
    torch.testing.assert_close(first[:, :, 1:], second[:, :, :-1])
    torch.testing.assert_close(look(layer, 12.0), torch.lerp(first, second, 0.25))


def test_words_say_which_scenery():
    layer = make_layer()
    assert (look(layer, 3.0, seed=1) - look(layer, 3.0)).abs().max() > 0.01


def test_rows_of_a_batch_are_their_own_games():
    layer = make_layer()
    both = torch.cat((words(0), words(1)))
    camera, clock = torch.tensor([5.0, 50.0]), torch.tensor([0.1, 0.9])
    together = layer(both, camera, clock)
    for row in range(2):
        part = slice(row, row + 1)
        torch.testing.assert_close(layer(both[part], camera[part], clock[part])[0], together[row])


def make_scenery(layers: dict[str, LayerConfig]) -> Scenery:
    sizes = {"word_width": 6, "phase_size": 4, "latent_channels": 5}
    config = SceneryConfig(width=8, layers=layers)
    made = Scenery(config, **sizes, grid=GRID, downsampling=STEP)
    return made.requires_grad_(requires_grad=False)


def paint(scenery: Scenery, camera: float = 3.0, *, seed: int = 0) -> Tensor:
    """Return the latents painted for one game, (c, h, w)."""
    place = torch.tensor([camera]), torch.tensor([0.0])
    return scenery(words(seed), *place, torch.zeros(1, 4))[0]


def test_what_is_painted_hangs_on_every_layer_and_on_words():
    scenery = make_scenery({"near": LAYER, "far": LayerConfig(parallax=0.25, loop=64, channels=2)})
    shown = paint(scenery)
    assert shown.shape == (5, *GRID)
    assert shown.dtype == torch.float32
    assert (paint(scenery, seed=1) - shown).abs().max() > 1e-3
    for layer in scenery.layers:
        kept = layer.table.clone()
        layer.table.zero_()
        assert (paint(scenery) - shown).abs().max() > 1e-3
        layer.table.copy_(kept)


def test_without_layers_words_alone_say_what_is_painted():
    scenery = make_scenery({})
    torch.testing.assert_close(paint(scenery, 3.0), paint(scenery, 40.0))
    assert (paint(scenery, seed=1) - paint(scenery)).abs().max() > 1e-3
