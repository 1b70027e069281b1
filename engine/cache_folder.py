"""Where things that can be made again are kept: exported graphs, engine files, measurements."""

import os
import sys
from pathlib import Path

APP_NAME = "midas-world"


def cache_folder() -> Path:
    """Return MIDAS_WORLD_CACHE, or this user's cache folder by the platform's custom.

    It may not exist yet.
    """
    if chosen := os.environ.get("MIDAS_WORLD_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return base / APP_NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / APP_NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / APP_NAME
