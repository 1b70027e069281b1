"""Files of a session, which grow by whole pieces."""

import os
from pathlib import Path


class AppendFile:
    """A new file that grows by whole pieces: one that cannot be written whole leaves no trace.

    Raises:
        OSError: The file exists, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb", buffering=0)
        self.size = 0

    def append(self, piece: bytes) -> None:
        """Write a piece, or raise OSError and leave the file as it was."""
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._stream.write(rest) or 0 :]
        except OSError:
            self._stream.truncate(self.size)
            self._stream.seek(self.size)
            raise
        self.size += len(piece)

    def sync(self) -> None:
        """Let the disk have it, so that it outlives a power cut."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._stream.close()
