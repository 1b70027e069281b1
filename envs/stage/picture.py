"""The picture of Stage: everything drawn in its order, and where in it the things are.

All positions are px of the 192 x 320 frame; what draws turns them into the pixels of the frame, of
which there are `scale` to each px. Moves nothing and knows no rules.
"""

import numpy as np
import pygame

from envs.stage.character import (
    PORTRAIT_RADIUS,
    PORTRAIT_TURN,
    draw_character,
    draw_portrait,
)
from envs.stage.conditioner import StageConditioner
from envs.stage.face import FACE_SHIFT
from envs.stage.game import COIN_HEIGHTS, MAX_HEARTS, GameObject, Kind, StageGame
from envs.stage.scenery import Scenery
from envs.stage.skeleton import CENTER_X, GROUND_Y
from envs.stage.sprites import draw_coin, draw_fire, draw_hearts, draw_rock

FRAME_HEIGHT = 192
FRAME_WIDTH = 320
MAX_OBJECTS = 16

_PORTRAIT = pygame.Rect(2, 130, 60, 60)  # inside the bottom left cell of the 64 px grid
_HEARTS_REGION = (36, 15, 30, 9)  # centre, half width and half height
_HALF_EYES = 15
_STUMBLE_RADIANS = 0.35
# Half width, half height and how far the middle lies above the place, px.
_THING_SIZES = {Kind.COIN: (10, 10, 0), Kind.ROCK: (16, 12, 9), Kind.FIRE: (14, 18, 14)}


class StagePicture:
    """What a state of Stage looks like.

    Below a scale of 1 it is drawn at 1, and made smaller.
    """

    def __init__(self, *, scale: float) -> None:
        self.keypoints = np.zeros((15, 2), np.float32)
        self._shown_scale = scale
        self._scale = max(1, int(scale))
        self._scenery = Scenery(scale=self._scale)
        size = FRAME_WIDTH * self._scale, FRAME_HEIGHT * self._scale
        self._canvas = pygame.Surface(size, 0, 32)

    def draw(self, conditioner: StageConditioner, game: StageGame) -> np.ndarray:
        """Draw a state and return it as a new frame, (H, W, 3) uint8."""
        canvas, scene, controller = self._canvas, conditioner.scene, conditioner.controller
        camera_x = controller.x
        light = self._scenery.light(scene)
        objects = game.visible(camera_x)
        self.keypoints = _stumbling(conditioner, game.flinch)
        face = {
            "facing": controller.facing,
            "outfit": scene.outfit,
            "mouth_open": conditioner.mouth_open,
            "eye_open": controller.eye_open(),
            "gaze": conditioner.gaze,
            "brows": conditioner.brows,
            "light": light,
            "scale": self._scale,
        }
        self._scenery.draw_background(canvas, scene, camera_x)
        for item in objects:
            if item.kind is not Kind.FIRE:
                self._draw_object(item, conditioner, light)
        draw_character(
            canvas, self.keypoints.tolist(), flash=game.flinch, turn=controller.turn, **face
        )
        for item in objects:
            if item.kind is Kind.FIRE:
                self._draw_object(item, conditioner, light)
        self._scenery.draw_weather(canvas, scene, camera_x, conditioner.clock)
        if conditioner.shows_face:
            tilt = 0.15 * conditioner.mouth_open
            draw_portrait(canvas, _PORTRAIT, head_tilt=tilt, nod=conditioner.nod, **face)
        draw_hearts(canvas, game.hearts, MAX_HEARTS, scale=self._scale)
        return self.frame()

    def frame(self) -> np.ndarray:
        """Return what is on the canvas as a new (H, W, 3) uint8 array."""
        picture = self._canvas
        if self._shown_scale < self._scale:
            size = int(FRAME_WIDTH * self._shown_scale), int(FRAME_HEIGHT * self._shown_scale)
            picture = pygame.transform.smoothscale(picture, size)
        return np.ascontiguousarray(pygame.surfarray.pixels3d(picture).transpose(1, 0, 2))

    def things(self, game: StageGame, camera_x: float) -> np.ndarray:
        """Return (16, 6) float32: class, centre x, y, half width, half height, number."""
        things = np.full((MAX_OBJECTS, 6), -1.0, np.float32)
        for row, item in zip(things, game.visible(camera_x), strict=False):
            half_width, half_height, up = _THING_SIZES[item.kind]
            place = (item.x - camera_x + CENTER_X, item.y - up, half_width, half_height)
            row[:] = _thing_class(item), *np.multiply(place, self._shown_scale), item.x
        return things

    def regions(self, *, shows_face: bool) -> np.ndarray:
        """Return (2, 4) float32 of hearts and portrait: centre x, y, half width, half height."""
        regions = np.zeros((2, 4), np.float32)
        regions[0] = _HEARTS_REGION
        if shows_face:
            regions[1] = *_PORTRAIT.center, *np.divide(_PORTRAIT.size, 2)
        return regions * self._shown_scale

    def eyes(self, conditioner: StageConditioner) -> np.ndarray:
        """Return (4,) float32 of the portrait's eyes: centre x, y, half width, half height."""
        eyes = np.zeros(4, np.float32)
        if conditioner.shows_face:
            turn = PORTRAIT_TURN * conditioner.controller.facing
            x, y = _PORTRAIT.center
            shift = FACE_SHIFT * turn * PORTRAIT_RADIUS * _PORTRAIT.height
            eyes[:] = x + shift, y, _HALF_EYES, _HALF_EYES
        return eyes * self._shown_scale

    def _draw_object(
        self, item: GameObject, conditioner: StageConditioner, light: tuple[int, int, int]
    ) -> None:
        x, scale = item.x - conditioner.controller.x + CENTER_X, self._scale
        step = conditioner.clock
        if item.kind is Kind.COIN:
            draw_coin(self._canvas, x, item.y, light=light, step=step, scale=scale)
        elif item.kind is Kind.ROCK:
            draw_rock(self._canvas, x, item.y, light=light, variant=item.variant, scale=scale)
        else:
            draw_fire(self._canvas, x, item.y, step=step, scale=scale)


def objects_of(game: StageGame, camera_x: float) -> np.ndarray:
    """Return (16, 4) float32: kind, dx from the character, dy from the ground, variant."""
    objects = np.full((MAX_OBJECTS, 4), -1.0, np.float32)
    for row, item in zip(objects, game.visible(camera_x), strict=False):
        row[:] = item.kind, item.x - camera_x, item.y - GROUND_Y, item.variant
    return objects


def _stumbling(conditioner: StageConditioner, flinch: float) -> np.ndarray:
    """Return the keypoints, which fall back around the feet while the character flinches."""
    keypoints, controller = conditioner.keypoints(), conditioner.controller
    if flinch == 0.0:
        return keypoints
    angle = -controller.facing * _STUMBLE_RADIANS * np.sin(np.pi * flinch) ** 2
    cos, sin = np.cos(angle), np.sin(angle)
    feet = np.array((CENTER_X, GROUND_Y - controller.height))
    rotation = np.array(((cos, sin), (-sin, cos)))  # right of a row vector
    return ((keypoints - feet) @ rotation + feet).astype(np.float32)


def objects_of_things(things: np.ndarray) -> np.ndarray:
    """Return things (O, 2), class and px from the picture's middle, as `objects_of` gives them."""
    classes = things[:, 0].astype(int)
    kinds = np.where(classes < 3, Kind.COIN, np.where(classes < 6, Kind.ROCK, Kind.FIRE))
    heights = np.array(COIN_HEIGHTS)[np.minimum(classes, 2)] - GROUND_Y
    away = things[:, 1] + FRAME_WIDTH / 2 - CENTER_X
    up = np.where(kinds == Kind.COIN, heights, 0.0)
    variants = np.where(kinds == Kind.ROCK, classes - 3, 0)
    return np.stack((kinds, away, up, variants), axis=1).astype(np.float32)


def _thing_class(item: GameObject) -> int:
    """Return 0 to 2 for coins from low to high, 3 to 5 for rocks by variant, 6 for fires."""
    if item.kind is Kind.COIN:
        return COIN_HEIGHTS.index(item.y)
    return 3 + item.variant if item.kind is Kind.ROCK else 6
