"""The boxes of a fragmented MP4: making fragments, and finding them again in a film cut off.

After ISO/IEC 14496-12 (boxes and fragments) and 14496-15 (H.264 in them). Encodes and decodes
nothing: that is video.py's business. Ours, as FFmpeg's own fragments (`frag_every_frame`) hold the
last frame back until the next one comes: a pause and a kill would lose what was seen last.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midas_world.data.video import VideoError

# Flags of a sample: it needs no other one, or it needs others and is none to begin at.
_KEY_FLAGS = 0x02000000
_NON_SYNC = 0x00010000
_OTHER_FLAGS = 0x01000000 | _NON_SYNC


@dataclass(frozen=True, kw_only=True)
class FilmIndex:
    """Where the frames of a fragmented MP4 lie, of which each is a fragment.

    Attributes:
        header_size: Bytes before the first fragment; 0 of a film that was never begun.
        offsets: Of the fragments.
        keyframes: Numbers of the frames that decoding can begin at, ascending.
        size: Bytes up to the end of the last whole fragment.
        num_lost: Bytes after that which belong to a fragment that was cut off.
    """

    header_size: int = 0
    offsets: tuple[int, ...] = ()
    keyframes: tuple[int, ...] = ()
    size: int = 0
    num_lost: int = 0

    @property
    def num_frames(self) -> int:
        """Frames that are whole."""
        return len(self.offsets)


def scan_film(path: Path) -> FilmIndex:
    """Return where the frames of a fragmented MP4 lie, cut off or not.

    Raises:
        VideoError: The file is no MP4.
    """
    if not path.is_file() or not path.stat().st_size:
        return FilmIndex()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if len(data) >= 8 and data[4:8] != b"ftyp":
            raise VideoError(f"{path} is no MP4")
        return _scan(data)


def _scan(data: mmap.mmap) -> FilmIndex:
    header_size = end = 0
    offsets: list[int] = []
    keyframes: list[int] = []
    fragment, size = None, len(data)
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"moov":
            header_size = end = stop
        elif kind == b"moof":
            fragment = (start, _is_key(data, start, stop))
        elif kind == b"mdat" and fragment is not None:
            offset, is_key = fragment
            if is_key:
                keyframes.append(len(offsets))
            offsets.append(offset)
            end, fragment = stop, None
        elif kind == b"mfra":  # the index at the end of a film that was closed
            size = end
            break
    return FilmIndex(
        header_size=header_size,
        offsets=tuple(offsets),
        keyframes=tuple(keyframes),
        size=end,
        num_lost=size - end,
    )


def _boxes(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the whole boxes in a range (ISO/IEC 14496-12, 4.2)."""
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size == 1 and start + 16 <= stop:
            size = struct.unpack_from(">Q", data, start + 8)[0]
        if size < 8 or start + size > stop:
            return
        yield kind, start, start + size
        start += size


def _is_key(data: mmap.mmap, start: int, stop: int) -> bool:
    """Return whether decoding can begin at a fragment, as `make_fragment` writes it."""
    for kind, traf, traf_stop in _boxes(data, start + 8, stop):
        if kind == b"traf":
            for name, place, end in _boxes(data, traf + 8, traf_stop):
                if name == b"tfhd" and end - place >= 28:
                    return not struct.unpack_from(">I", data, place + 24)[0] & _NON_SYNC
    return False


def make_fragment(sample: bytes, *, number: int, time: int, duration: int, is_key: bool) -> bytes:
    """Return a fragment of one frame of track 1, whose boxes are "moof" and "mdat".

    Args:
        sample: H.264 of the frame, as `to_avc` returns it.
        number: Of the fragment, counted from 1.
        time: When the frame is shown, in the track's units of time.
        duration: How long, in the same units.
        is_key: Whether decoding can begin here.
    """
    flags = _KEY_FLAGS if is_key else _OTHER_FLAGS
    # Flags: the data's place counts from the "moof"; duration, size and flags are of all samples.
    header = _box(b"tfhd", struct.pack(">IIIII", 0x020038, 1, duration, len(sample), flags))
    base = _box(b"tfdt", struct.pack(">IQ", 0x01000000, time))
    sequence = _box(b"mfhd", struct.pack(">II", 0, number))

    def movie(data_offset: int) -> bytes:
        run = _box(b"trun", struct.pack(">III", 0x000001, 1, data_offset))
        return _box(b"moof", sequence + _box(b"traf", header + base + run))

    return movie(len(movie(0)) + 8) + _box(b"mdat", sample)


def to_avc(stream: bytes) -> bytes:
    """Return H.264 units parted by start codes as units that follow their sizes."""
    # No unit ends in a zero: one before a start code belongs to a start code of four bytes.
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")]
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
