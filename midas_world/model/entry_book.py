"""What a game knows of its world beside the picture: the things along it, lives, the last hit.

The world's x axis is cut into strips. A strip that comes near the picture for the first time gets
its class drawn, once; what was drawn is told as a code as long as it is in view (entries.py), and
is remembered when it leaves. A code whose thing is gone, collected or kicked away, is forgotten.

Places are px along an axis without end: the camera's place within its loop is unrolled.

Shapes: B games, R rows of them, J codes told at once, K classes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from midas_world.config import WorldConfig
from midas_world.types import LONGEST_SINCE_HIT

_NUM_CODES = 32
# Columns of `codes`.
_KIND, _PLACE = range(2)


class EntryBook:
    """Codes, lives and hits of B games.

    Args:
        config: Of the world.
        batch_size: B.

    Attributes:
        camera: (B,) float64 px.
        loop_camera: (B,) float64 px of the same place within its loop.
        frontier: (B, 2) int64 the outermost strips that were drawn, at the left and at the right;
            strip s covers [s * strip, (s + 1) * strip).
        codes: (B, 32, 2) float64: class (-1: none) and px of its middle.
        told: (B, J) int64 which codes were told in the last step; -1: none.
        probabilities: (B, 2, K + 1) float32 of what comes next at the left and at the right; the
            last class is nothing.
        lives: (B,) int64 that are left; 0 where the world counts none.
        since_hit: (B,) int64 steps since the last hit, at most LONGEST_SINCE_HIT.
        shows_things: (B,) bool; a game that does not never has a code.
    """

    def __init__(self, config: WorldConfig, batch_size: int) -> None:
        self.config, self._entries = config, config.entries
        self._outside = config.width / 2 + config.entries.outside
        num_classes = config.entries.num_classes
        self.camera = np.zeros(batch_size)
        self.loop_camera = np.zeros(batch_size)
        self.frontier = np.zeros((batch_size, 2), np.int64)
        self.codes = np.zeros((batch_size, _NUM_CODES if num_classes else 0, 2))
        self.codes[..., _KIND] = -1
        self.told = np.full((batch_size, config.entries.capacity if num_classes else 0), -1)
        self.probabilities = np.zeros((batch_size, 2, num_classes + 1), np.float32)
        self.probabilities[..., -1] = 1
        self.lives = np.full(batch_size, config.lives)
        self.since_hit = np.full(batch_size, LONGEST_SINCE_HIT)
        self.shows_things = np.ones(batch_size, bool)

    def begin(
        self, rows: Sequence[int], loop_camera: np.ndarray, things: Sequence[np.ndarray]
    ) -> None:
        """Let games see another place: what its first frame shows is known, nothing else.

        Args:
            rows: The R games.
            loop_camera: (R,) px of the camera within its loop.
            things: Of each game (O, 2): class and px from the middle of the picture.
        """
        at = list(rows)
        self.camera[at] = self.loop_camera[at] = loop_camera
        self.frontier[at] = self._reach(self.camera[at])
        self.codes[at] = 0
        self.codes[at, :, _KIND] = -1
        self.told[at] = -1
        self.probabilities[at] = 0
        self.probabilities[at, :, -1] = 1
        for row, seen in zip(at, things, strict=True):
            for kind, place in seen[: self.codes.shape[1] * self.shows_things[row]]:
                self._add(row, int(kind), self.camera[row] + place)

    def refill(self, rows: Sequence[int]) -> None:
        """Give games all lives back, and forget their hits."""
        self.lives[list(rows)] = self.config.lives
        self.since_hit[list(rows)] = LONGEST_SINCE_HIT

    def advance(self, loop_cameras: np.ndarray, draw: Callable[[int], float]) -> np.ndarray:
        """Move the cameras and return the codes that are told, (B, J, 2) float32.

        Args:
            loop_cameras: (B,) px of the cameras within their loop.
            draw: Return a number in [0, 1) of a game's own chance; called once for each strip.

        Returns:
            Of each code its class, -1 where there is none, and px from the middle of the picture.
        """
        told = np.full((len(self.camera), self._entries.capacity, 2), -1, np.float32)
        if not self._entries.num_classes:
            return told
        self.camera += self.config.conditions.camera.travel(self.loop_camera, loop_cameras)
        self.loop_camera[:] = loop_cameras
        for row, reach in enumerate(self._reach(self.camera)):
            while self.frontier[row, 0] > reach[0]:
                self.frontier[row, 0] -= 1
                self._enter(row, 0, draw(row))
            while self.frontier[row, 1] < reach[1]:
                self.frontier[row, 1] += 1
                self._enter(row, 1, draw(row))
        way = self.codes[..., _PLACE] - self.camera[:, None]
        is_shown = (np.abs(way) <= self._outside) & (self.codes[..., _KIND] >= 0)
        self.told[:] = -1
        for row in np.flatnonzero(is_shown.any(axis=1)):
            places = np.flatnonzero(is_shown[row])
            # Should there be too many, the nearest count.
            places = places[np.argsort(np.abs(way[row, places]), kind="stable")][: told.shape[1]]
            self.told[row, : len(places)] = places
            told[row, : len(places), 0] = self.codes[row, places, _KIND]
            told[row, : len(places), 1] = way[row, places]
        return told

    def observe(self, entries: np.ndarray, gone: np.ndarray) -> None:
        """Take over what a step made: chances of what comes next, and which codes are no more.

        Args:
            entries: (B, 2, K + 1) probabilities of what comes next.
            gone: (B, J) bool, of the codes that `advance` told.
        """
        self.probabilities[:] = entries
        self.since_hit[:] = np.minimum(self.since_hit + 1, LONGEST_SINCE_HIT)
        if self._entries.num_classes:
            for row, place in zip(*np.nonzero(gone & (self.told >= 0)), strict=True):
                self.codes[row, self.told[row, place]] = (-1, 0)

    def tally(self) -> np.ndarray:
        """Return share of the lives left and steps since the last hit, (B, 2) float32."""
        share = self.lives / max(1, self.config.lives) if self.config.lives else 1.0
        return np.stack((np.broadcast_to(share, len(self.lives)), self.since_hit), axis=1).astype(
            np.float32
        )

    def hit(self, hits: np.ndarray) -> None:
        """Take a life of the games that were hit in the last step, (B,) bool."""
        self.since_hit[hits] = 1
        if self.config.lives:
            self.lives[hits] = np.maximum(self.lives[hits] - 1, 0)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of all that changes; every entry is (B, ...)."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave, of the same world and number of games."""
        for name, array in self._arrays().items():
            array[:] = state[name]

    def check_codes(self, codes: np.ndarray) -> None:
        """Check the codes of a state, of which classes are looked up in tables.

        Raises:
            ValueError: One has a class that the world does not know, or no place.
        """
        kinds, known = codes[..., _KIND], range(-1, self._entries.num_classes)
        if not (np.isfinite(codes).all() and np.isin(kinds, known).all()):
            raise ValueError(f"codes of the state must be of classes below {known.stop}")

    def _arrays(self) -> dict[str, np.ndarray]:
        places = "camera", "loop_camera", "frontier", "codes", "told"
        names = (*places, "probabilities", "lives", "since_hit", "shows_things")
        return {name: getattr(self, name) for name in names}

    def _reach(self, camera: np.ndarray) -> np.ndarray:
        """Return the outermost strips that are near the picture, (B, 2), of cameras (B,)."""
        edges = np.stack((camera - self._outside, camera + self._outside), axis=1)
        return np.floor(edges / self._entries.strip).astype(np.int64)

    def _enter(self, row: int, side: int, chance: float) -> None:
        """Let what the outermost strip of a side holds be drawn by a number in [0, 1)."""
        sums = np.cumsum(self.probabilities[row, side], dtype=np.float64)
        kind = int(np.searchsorted(sums, chance * sums[-1], side="right"))
        if kind < self._entries.num_classes and self.shows_things[row]:
            self._add(row, kind, (self.frontier[row, side] + 0.5) * self._entries.strip)

    def _add(self, row: int, kind: int, place: float) -> None:
        """Add a code; if there is no room, the farthest one is forgotten."""
        codes = self.codes[row]
        away = np.abs(codes[:, _PLACE] - self.camera[row])
        away[codes[:, _KIND] < 0] = np.inf
        codes[np.argmax(away)] = (kind, place)
