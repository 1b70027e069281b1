"""How far opening a game has come, told by the thread that opens to the window that waits."""

from collections.abc import Mapping, Sequence


class Loading:
    """What is being done at present, and the game's keys as soon as they are known."""

    def __init__(self, stage: str = "loading") -> None:
        self.stage = stage
        self.keys: Mapping[str, Sequence[str]] = {}

    def tell(self, stage: str, *, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        """Say what is done now."""
        self.stage = stage
        if keys is not None:
            self.keys = keys
