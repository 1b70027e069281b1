"""What a game knows of the things along its world: new ones enter by chance, known ones come back.

The world's x axis is cut into strips. A strip that comes near the picture for the first time gets
its class drawn, once; what was drawn is told to the head as a code while it comes into view
(entries.py), and is remembered when it leaves, so that it is told again when it comes back. What
is no longer seen where it should be was collected or has faded, and is forgotten.

Places are px along an axis without end: the camera's place within its loop is unrolled.

Shapes: B games, R rows of them, J codes told at once, K classes, w columns of the fine grid.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from midas_world.config import WorldConfig

_NUM_CODES = 32
# Columns of `codes`.
_KIND, _PLACE, _IS_TOLD, _NUM_MISSING = range(4)

# A code is looked for where its thing is whole in the picture, and not behind the character; px.
_EDGE, _HIDDEN = 24.0, 32.0
# It is there if a column this near says so with this probability; else, so many times, it is gone.
_COLUMNS_NEAR, _LEAST, _PATIENCE = 1.5, 0.3, 3
# Things seen without a code get one: in a start frame, and later. Other codes are farther, in px.
_SEEN_AT_START, _SEEN, _APART = 0.5, 0.7, 16.0


class EntryBook:
    """Codes of the things along the worlds of B games.

    Args:
        config: Of the world.
        batch_size: B.

    Attributes:
        camera: (B,) float64 px.
        loop_camera: (B,) float64 px of the same place within its loop.
        frontier: (B, 2) int64 the outermost strips that were drawn, at the left and at the right;
            strip s covers [s * strip, (s + 1) * strip).
        codes: (B, 32, 4) float64: class (-1: none), px of its middle, whether it is told as soon
            and as long as it comes into view, how many times it was missing.
        probabilities: (B, 2, K + 1) float32 of what comes next at the left and at the right; the
            last class is nothing.
    """

    def __init__(self, config: WorldConfig, batch_size: int) -> None:
        self.config, self._entries = config, config.entries
        self._half = config.width / 2
        self._outside = self._half + config.entries.outside
        self._step = config.autoencoder.downsampling
        num_classes = config.entries.num_classes
        self.camera = np.zeros(batch_size)
        self.loop_camera = np.zeros(batch_size)
        self.frontier = np.zeros((batch_size, 2), np.int64)
        self.codes = np.zeros((batch_size, _NUM_CODES if num_classes else 0, 4))
        self.codes[..., _KIND] = -1
        self.probabilities = np.zeros((batch_size, 2, num_classes + 1), np.float32)
        self.probabilities[..., -1] = 1

    def reset(
        self, rows: Sequence[int], loop_camera: np.ndarray, things: np.ndarray | None
    ) -> None:
        """Begin games anew: what their first frame shows is known, and nothing is told.

        Args:
            rows: The R games.
            loop_camera: (R,) px of the camera within its loop.
            things: (R, K, w) probability that a thing's middle is in a column; None: no things.
        """
        at = list(rows)
        self.camera[at] = self.loop_camera[at] = loop_camera
        self.frontier[at] = self._reach(self.camera[at])
        self.codes[at] = 0
        self.codes[at, :, _KIND] = -1
        self.probabilities[at] = 0
        self.probabilities[at, :, -1] = 1
        if things is not None:
            for row, seen in zip(at, things, strict=True):
                self._learn(row, seen, _SEEN_AT_START)

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
        loop = self.config.conditions.camera.loop
        self.camera += (loop_cameras - self.loop_camera + loop / 2) % loop - loop / 2
        self.loop_camera[:] = loop_cameras
        for row, reach in enumerate(self._reach(self.camera)):
            while self.frontier[row, 0] > reach[0]:
                self.frontier[row, 0] -= 1
                self._enter(row, 0, draw(row))
            while self.frontier[row, 1] < reach[1]:
                self.frontier[row, 1] += 1
                self._enter(row, 1, draw(row))
        away = np.abs(self._way())
        is_told = self.codes[..., _IS_TOLD]
        is_told[away > self._outside] = 1
        is_told[away < self._half - self._entries.inside] = 0
        is_shown = (is_told > 0) & (away <= self._outside) & (self.codes[..., _KIND] >= 0)
        for row in np.flatnonzero(is_shown.any(axis=1)):
            places = np.flatnonzero(is_shown[row])
            nearest = np.argsort(np.abs(away[row, places] - self._half), kind="stable")
            places = places[nearest[: told.shape[1]]]
            told[row, : len(places), 0] = self.codes[row, places, _KIND]
            told[row, : len(places), 1] = self.codes[row, places, _PLACE] - self.camera[row]
        return told

    def observe(self, entries: np.ndarray, things: np.ndarray) -> None:
        """Take over what a step made: chances of what comes next, and what can be seen.

        Args:
            entries: (B, 2, K + 1) probabilities of what comes next.
            things: (B, K, w) probability that a thing's middle is in a column.
        """
        self.probabilities[:] = entries
        if not self._entries.num_classes:
            return
        way, kind = self._way(), self.codes[..., _KIND].astype(np.int64)
        away, num_missing = np.abs(way), self.codes[..., _NUM_MISSING]
        is_in_sight = (kind >= 0) & (away < self._half - _EDGE) & (away >= _HIDDEN)
        for row, code in zip(*np.nonzero(is_in_sight), strict=True):
            near = np.abs(self._columns(things) - way[row, code]) <= _COLUMNS_NEAR * self._step
            if things[row, kind[row, code], near].max(initial=0.0) > _LEAST:
                num_missing[row, code] = 0
                continue
            num_missing[row, code] += 1
            if num_missing[row, code] >= _PATIENCE:
                self.codes[row, code] = (-1, 0, 0, 0)
        for row in np.flatnonzero((things > _SEEN).any(axis=(1, 2))):
            self._learn(int(row), things[row], _SEEN)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of all that changes; every entry is (B, ...)."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave, of the same world and number of games."""
        for name, array in self._arrays().items():
            array[:] = state[name]

    def _arrays(self) -> dict[str, np.ndarray]:
        names = "camera", "loop_camera", "frontier", "codes", "probabilities"
        return {name: getattr(self, name) for name in names}

    def _way(self) -> np.ndarray:
        """Return where codes are from the middle of the picture, (B, 32) px."""
        return self.codes[..., _PLACE] - self.camera[:, None]

    def _reach(self, camera: np.ndarray) -> np.ndarray:
        """Return the outermost strips that are near the picture, (B, 2), of cameras (B,)."""
        edges = np.stack((camera - self._outside, camera + self._outside), axis=1)
        return np.floor(edges / self._entries.strip).astype(np.int64)

    def _columns(self, things: np.ndarray) -> np.ndarray:
        """Return the middle of each column in px from the middle of the picture, (w,)."""
        count = things.shape[-1]
        return (np.arange(count) - (count - 1) / 2) * self._step

    def _enter(self, row: int, side: int, chance: float) -> None:
        """Let what the outermost strip of a side holds be drawn by a number in [0, 1)."""
        sums = np.cumsum(self.probabilities[row, side], dtype=np.float64)
        kind = int(np.searchsorted(sums, chance * sums[-1], side="right"))
        if kind < self._entries.num_classes:
            place = (self.frontier[row, side] + 0.5) * self._entries.strip
            self._add(row, kind, place, is_told=True)

    def _learn(self, row: int, things: np.ndarray, least: float) -> None:
        """Add codes of peaks in things (K, w) that are above `least` and that no code explains."""
        padded = np.pad(things, ((0, 0), (1, 1)), constant_values=-1.0)
        inner = padded[:, 1:-1]
        is_peak = (inner > least) & (inner > padded[:, :-2]) & (inner >= padded[:, 2:])
        kinds, columns = np.nonzero(is_peak)
        places = self.camera[row] + self._columns(things)[columns]
        for peak in np.argsort(-things[kinds, columns], kind="stable"):
            own = self.codes[row]
            apart = np.abs(own[own[:, _KIND] >= 0, _PLACE] - places[peak])
            if apart.min(initial=np.inf) > _APART:
                self._add(row, int(kinds[peak]), places[peak], is_told=False)

    def _add(self, row: int, kind: int, place: float, *, is_told: bool) -> None:
        """Add a code; if there is no room, the farthest one is forgotten."""
        codes = self.codes[row]
        away = np.abs(codes[:, _PLACE] - self.camera[row])
        away[codes[:, _KIND] < 0] = np.inf
        codes[np.argmax(away)] = (kind, place, is_told, 0)
