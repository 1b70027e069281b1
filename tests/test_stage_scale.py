"""Stage at 384 x 640 is the same game: all of it at the same places, with twice the detail."""

import numpy as np
import pygame
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from envs.stage.game import GameObject, Kind
from envs.stage.moods import WEATHERS
from envs.stage.scene import Scene
from envs.stage.scenery import Scenery
from envs.stage.skeleton import GROUND_Y
from midas_world.config import load_preset
from midas_world.teachers.env import make_teacher
from midas_world.train.data import character_weight

TALK = ACTIONS.index("talk")
BACKDROP = (60, 90, 120)
# Left, top, right and bottom of what test_each_part looks at, in px of the 192 x 320 frame.
PARTS = {
    "hearts": (6, 6, 64, 24),
    "coin": (90, 30, 110, 50),
    "rock": (242, 148, 278, 172),
    "fire": (76, 124, 124, 172),
    "character": (140, 60, 200, 172),
    "portrait": (2, 130, 62, 190),
    "sun": (228, 12, 266, 52),
    "scenery": (200, 60, 320, 190),
}


def halved(picture: np.ndarray) -> np.ndarray:
    """Return a picture, (2 H, 2 W, 3), averaged down to (H, W, 3)."""
    height, width, _ = picture.shape
    return picture.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))


def doubled(picture: np.ndarray) -> np.ndarray:
    """Return a picture, (H, W, 3), smoothly enlarged to (2 H, 2 W, 3)."""
    surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
    large = pygame.transform.smoothscale(surface, (2 * picture.shape[1], 2 * picture.shape[0]))
    return pygame.surfarray.array3d(large).swapaxes(0, 1)


def contrast(picture: np.ndarray) -> float:
    """Return the mean squared difference of neighbouring pixels: more where it is sharper."""
    values = picture.astype(float)
    return float((np.diff(values, axis=0) ** 2).mean() + (np.diff(values, axis=1) ** 2).mean())


def talking(scale: int) -> np.ndarray:
    """Return the frame of somebody who talks among a coin, a rock and a fire."""
    env = StageEnv(scale=scale)
    scene = Scene("meadow", "noon", "clear", "red jacket")
    env.reset(seed=1, options={"scene": scene, "x": 80.0, "facing": 1, "scene_changes": False})
    items = ((Kind.COIN, 20.0, 40.0), (Kind.FIRE, 20.0, GROUND_Y), (Kind.ROCK, 180.0, GROUND_Y))
    env._game._segments = dict.fromkeys(range(-100, 100), ())
    env._game._segments[0] = tuple(GameObject(kind, x, y, 0) for kind, x, y in items)
    frames = [env.step(TALK)[0] for _ in range(8)]
    return frames[-1]


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    return talking(1)


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    return talking(2)


@pytest.fixture
def without_scenery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a plain backdrop: painting places takes most of the time."""
    plain = lambda _self, surface, *_: surface.fill(BACKDROP)  # noqa: E731
    monkeypatch.setattr(Scenery, "draw_background", plain)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_drawn_sharper_and_at_the_same_place(small, large, part):
    left, top, right, bottom = PARTS[part]
    before = small[top:bottom, left:right]
    after = large[2 * top : 2 * bottom, 2 * left : 2 * right]
    errors = {}
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            moved = np.roll(large, (down, across), axis=(0, 1))
            moved = halved(moved)[top:bottom, left:right]
            errors[down, across] = np.abs(moved - before).mean()
    assert min(errors, key=errors.__getitem__) == (0, 0)
    assert contrast(after) > 1.25 * contrast(doubled(before))


@pytest.mark.parametrize("falling", WEATHERS[1:])
def test_weather_falls_at_the_same_places(falling):
    pictures = []
    words = Scene(weather=falling)
    for scale in (1, 2):
        surface = pygame.Surface((320 * scale, 192 * scale), 0, 32)
        surface.fill(BACKDROP)
        Scenery(scale=scale).draw_weather(surface, words, 41.3, 5)
        pictures.append(pygame.surfarray.array3d(surface).swapaxes(0, 1))
    drawn = np.abs(pictures[0].astype(float) - BACKDROP).mean()
    assert np.abs(halved(pictures[1]) - pictures[0]).mean() < 0.35 * drawn


def test_the_scale_changes_nothing_but_the_picture(without_scenery):
    both = [StageEnv(scale=scale) for scale in (1, 2)]
    starts = [env.reset(seed=11) for env in both]
    np.testing.assert_equal(starts[0][1]["scene"], starts[1][1]["scene"])
    scores, hearts = set(), set()
    for action in np.random.default_rng(0).integers(len(ACTIONS), size=25).repeat(8):
        first, second = (env.step(action) for env in both)
        assert first[0].shape == (192, 320, 3)
        assert second[0].shape == (384, 640, 3)
        assert first[1:4] == second[1:4]
        infos = first[4], second[4]
        for name in ("keypoints", "things", "regions", "eyes"):
            small, large = (info.pop(name) for info in infos)
            is_length = slice(1, 5) if name == "things" else slice(None)
            small[small[..., 0] >= 0, is_length] *= 2
            np.testing.assert_array_equal(small, large)
            assert large.dtype == np.float32
        np.testing.assert_equal(*infos)
        scores.add(infos[0]["score"])
        hearts.add(infos[0]["hearts"])
        if first[2]:
            break
    assert len(scores) > 1
    assert len(hearts) > 1


@pytest.mark.parametrize("scale", [0, 3, -1, 1.5, "2", None])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=r"scale must be 1 .*, 2 .* or 0.25 .*, got"):
        StageEnv(scale=scale)


@pytest.mark.parametrize(("scale", "size"), [(1, (960, 576)), (2, (1280, 768))])
def test_the_window_shows_either_size(scale, size, without_scenery):
    env = StageEnv(render_mode="human", scale=scale)
    frame, _ = env.reset(seed=0)
    window = env._window._window.get_surface()
    assert window.get_size() == size
    times = size[0] // frame.shape[1]
    shown = pygame.surfarray.array3d(window).swapaxes(0, 1)[::times, ::times]
    np.testing.assert_array_equal(shown, frame)
    env.close()


@pytest.mark.parametrize("preset", ["stage", "stage-hd", "paper"])
def test_the_teacher_of_a_preset_draws_frames_of_its_size(preset):
    config = load_preset(preset)
    env = make_teacher(config.data)
    assert env.observation_space.shape == (config.world.height, config.world.width, 3)


def test_the_character_weighs_the_same_at_both_sizes():
    keypoints = torch.rand(2, 15, 2, generator=torch.Generator().manual_seed(0)) * 90 + 60
    limbs = load_preset("stage").world.conditions.limbs
    weight = character_weight(keypoints, 192, 320, limbs=limbs)
    larger = character_weight(2 * keypoints, 384, 640, limbs=limbs)
    assert larger.shape == (2, 1, 384, 640)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(larger, 2), weight)
    # Its radius at 192 x 320 is 9 px; the cell at (50, 50) is 9 px beside the keypoint.
    alone = character_weight(torch.tensor([[[59.0, 50.0]]]), 192, 320, limbs=())
    near = alone[0, 0, 49:51, 49:51].mean().item()
    assert near == pytest.approx(np.exp(-0.5), abs=0.01)


def test_a_quarter_shows_all_where_it_was():
    data = load_preset("tiny").data
    env, whole = make_teacher(data), StageEnv()
    (frame, info), (large, told) = env.reset(seed=3), whole.reset(seed=3)
    assert frame.shape == (48, 80, 3)
    average = large.reshape(48, 4, 80, 4, 3).mean(axis=(1, 3))
    assert np.abs(frame - average).max() <= 2
    np.testing.assert_allclose(info["keypoints"], told["keypoints"] / 4, atol=1e-5)
    for name in ("things", "regions"):
        places = slice(1, 5) if name == "things" else slice(4)
        seen = told[name][:, 0] > 0
        np.testing.assert_allclose(
            info[name][seen, places], told[name][seen, places] / 4, atol=1e-5
        )
