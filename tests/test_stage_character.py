import numpy as np
import pygame
import pytest

from envs.stage import sprites
from envs.stage.character import draw_character, draw_portrait
from envs.stage.controller import ACTIONS, PoseController
from envs.stage.looks import OUTFITS
from envs.stage.skeleton import GROUND_Y, KEYPOINTS

BACKGROUND = (90, 140, 190)


LOOK = {"facing": 1, "outfit": "red jacket", "mouth_open": 0.0, "eye_open": 1.0}


def drawn(draw, *given, background=BACKGROUND, **look) -> np.ndarray:
    """Return the (192, 320, 3) picture of what was drawn on a plain ground."""
    surface = pygame.Surface((320, 192), 0, 32)
    surface.fill(background)
    draw(surface, *given, **look)
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


def picture(keypoints=None, **changes) -> np.ndarray:
    points = PoseController().keypoints() if keypoints is None else keypoints
    return drawn(draw_character, points, **(LOOK | changes))


def portrait(**changes) -> np.ndarray:
    return drawn(draw_portrait, (10, 8, 60, 60), **(LOOK | changes))


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first.astype(int) - second).max(axis=-1) > 40


@pytest.mark.parametrize("outfit", OUTFITS)
@pytest.mark.parametrize("background", [BACKGROUND, (10, 12, 30), (245, 245, 245)])
def test_every_joint_is_drawn(outfit, background):
    controller = PoseController()
    for _ in range(9):
        controller.step(ACTIONS.index("run_left"))
    keypoints = controller.keypoints()
    frame = picture(keypoints, facing=-1, outfit=outfit, background=background)
    is_drawn = changed(frame, np.broadcast_to(np.array(background), frame.shape))
    for x, y in keypoints:
        column, row = int(x), int(y)
        assert is_drawn[row - 4 : row + 5, column - 4 : column + 5].any()
    rows, columns = is_drawn.nonzero()
    assert rows.max() <= GROUND_Y + 2
    assert columns.min() > keypoints[:, 0].min() - 26
    assert columns.max() < keypoints[:, 0].max() + 26


def test_outfits_differ():
    frames = [picture(outfit=outfit) for outfit in OUTFITS]
    portraits = [portrait(outfit=outfit) for outfit in OUTFITS]
    for images in (frames, portraits):
        for i, first in enumerate(images):
            for second in images[:i]:
                assert changed(first, second).sum() > 500


def test_open_mouth_changes_the_lower_face_only():
    x, y = PoseController().keypoints()[KEYPOINTS.index("head")]
    rows, columns = changed(picture(), picture(mouth_open=1.0)).nonzero()
    assert len(rows) > 20
    assert rows.min() >= y
    assert rows.max() <= y + 14
    assert np.abs(columns - x).max() <= 16
    assert changed(portrait(), portrait(mouth_open=1.0)).sum() > 60


@pytest.mark.parametrize("outfit", OUTFITS)
def test_raised_brows_change_the_upper_face_only(outfit):
    rest, raised = (portrait(outfit=outfit, brows=brows) for brows in (0.0, 1.0))
    rows, columns = changed(rest, raised).nonzero()
    assert len(rows) > 10
    assert 20 < rows.min() < rows.max() < 34
    assert columns.min() > 24


def test_blink_gaze_light_and_flash_show():
    assert changed(picture(), picture(eye_open=0.0)).sum() > 10
    assert changed(picture(gaze=-1.0), picture(gaze=1.0)).any()
    assert changed(portrait(), portrait(eye_open=0.0)).sum() > 30
    assert changed(portrait(), portrait(head_tilt=0.2)).any()
    assert picture(light=(90, 100, 160)).sum() < picture().sum()
    hurt = picture(flash=1.0).astype(int) - picture()
    assert hurt[..., 0].sum() > 0
    assert changed(picture(), picture(flash=1.0)).sum() > 1000


# Sprites; that they lie in their boxes, test_stage_env.py has.


def test_rocks_differ():
    rocks = [
        drawn(sprites.draw_rock, 160, 168, light=(255, 255, 255), variant=variant).tobytes()
        for variant in range(sprites.NUM_ROCKS)
    ]
    assert len(set(rocks)) == sprites.NUM_ROCKS


def box(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what was drawn; the last two are exclusive."""
    rows, columns = np.nonzero((picture != BACKGROUND).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_fire_stays_in_its_glow_and_loops():
    pictures = [drawn(sprites.draw_fire, 160, 168, step=step) for step in range(9)]
    for left, top, right, bottom in map(box, pictures):
        assert 138 <= left < right <= 182
        assert 126 <= top < bottom <= 172
    np.testing.assert_array_equal(pictures[0], pictures[8])
    assert len({picture.tobytes() for picture in pictures}) == 8


@pytest.mark.parametrize("hearts", [0, 1, 2])
def test_each_heart_is_visible(hearts):
    fewer, more = (drawn(sprites.draw_hearts, count, 3) for count in (hearts, hearts + 1))
    left, top, right, bottom = box(fewer)
    assert 8 <= left < right <= 8 + 3 * 15 + 2 * 4
    assert 8 <= top < bottom <= 22
    differs = np.abs(more.astype(int) - fewer).max(axis=2) > 60
    columns = np.nonzero(differs.any(axis=0))[0]
    assert differs.sum() > 60
    assert 8 + hearts * 19 <= columns.min() <= columns.max() < 8 + hearts * 19 + 15
