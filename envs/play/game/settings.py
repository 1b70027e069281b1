"""A player's settings, kept in their settings folder: how loud, how large, which keys."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from midas_world.files import write_whole
from midas_world.sessions.export.pictures import SHAPES
from midas_world.typed import from_values, read_values

MAX_VOLUME = 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a player has chosen.

    Attributes:
        volume: 0 to 10.
        fills_window: Whether the picture is as large as fits, not a whole number of times.
        film_shape: Of saved films; "" is the picture's own.
        language: In which the character talks; "" is as the world has it.
        keys: Keys of the game and of commands, each with the place that the player has for it.
        pad: The same keys, each with the button that the player has for it.

    Raises:
        ValueError: There is no such volume or shape.
    """

    volume: int = MAX_VOLUME
    is_fullscreen: bool = False
    fills_window: bool = False
    uses_pads: bool = True
    shows_bookmarks: bool = True
    shows_held_keys: bool = False
    film_shape: str = ""
    language: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    pad: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.volume <= MAX_VOLUME:
            raise ValueError(f"volume must be 0 to {MAX_VOLUME}, got {self.volume}")
        if self.film_shape not in ("", *SHAPES):
            raise ValueError(f"film_shape must be one of {', '.join(SHAPES)}")


class SettingsFile:
    """Settings and the file that they are kept in.

    Attributes:
        problem: Why the file is not read or written, in words; empty if it is.
    """

    def __init__(self, path: Path | None) -> None:
        self.settings, self.problem = Settings(), ""
        self._path = path
        if path is None or not path.exists():
            return
        try:
            read = read_values(path)
            known = {name: read[name] for name in asdict(self.settings) if name in read}
            self.settings = from_values(Settings, known)
        except ValueError as error:
            self.problem = f"settings are not read from {path}: {error}"

    def change(self, **changes: Any) -> None:
        """Change some settings and keep them."""
        self.settings = replace(self.settings, **changes)
        if self._path is None or self.problem:
            return
        try:
            write_whole(self._path, json.dumps(asdict(self.settings), indent=1))
        except OSError as error:
            self.problem = f"settings cannot be kept: {error}"
