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
# What may stand before the default sample flags in a "tfhd" box: flag bit and bytes.
_TFHD_FIELDS = ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4))


@dataclass(frozen=True, kw_only=True)
class FilmIndex:
    """Where the frames of a fragmented MP4 lie.

    Attributes:
        header_size: Bytes before the first fragment; 0 of a film that was never begun.
        keyframes: Numbers of the frames that decoding can begin at, ascending.
        size: Bytes up to the end of the last whole fragment.
        num_lost: Bytes after that which belong to a fragment that was cut off.
    """

    header_size: int = 0
    offsets: tuple[int, ...] = ()
    first_frames: tuple[int, ...] = ()
    keyframes: tuple[int, ...] = ()
    num_frames: int = 0
    size: int = 0
    num_lost: int = 0


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
    header_size = end = num_frames = default_flags = 0
    offsets: list[int] = []
    first_frames: list[int] = []
    keyframes: list[int] = []
    fragment, size = None, len(data)
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"moov":
            header_size = end = stop
            default_flags = _trex_flags(data, start, stop)
        elif kind == b"moof":
            fragment = (start, *_read_moof(data, start, stop, default_flags))
        elif kind == b"mdat" and fragment is not None:
            offset, count, is_key = fragment
            offsets.append(offset)
            first_frames.append(num_frames)
            if is_key:
                keyframes.append(num_frames)
            num_frames += count
            end, fragment = stop, None
        elif kind == b"mfra":  # the index at the end of a film that was closed
            size = end
            break
    return FilmIndex(
        header_size=header_size,
        offsets=tuple(offsets),
        first_frames=tuple(first_frames),
        keyframes=tuple(keyframes),
        num_frames=num_frames,
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


def _trex_flags(data: mmap.mmap, start: int, stop: int) -> int:
    """Return the default sample flags that a film's header gives."""
    for kind, inner, inner_stop in _boxes(data, start + 8, stop):
        if kind == b"mvex":
            for name, place, _ in _boxes(data, inner + 8, inner_stop):
                if name == b"trex":
                    return struct.unpack_from(">I", data, place + 28)[0]
    return 0


def _read_moof(data: mmap.mmap, start: int, stop: int, flags: int) -> tuple[int, bool]:
    """Return the number of frames of a fragment, and whether its first one is a keyframe."""
    count = 0
    for kind, traf, traf_stop in _boxes(data, start + 8, stop):
        if kind != b"traf":
            continue
        for name, place, _ in _boxes(data, traf + 8, traf_stop):
            has = struct.unpack_from(">I", data, place + 8)[0] & 0xFFFFFF
            if name == b"tfhd" and has & 0x20:
                skipped = sum(size for bit, size in _TFHD_FIELDS if has & bit)
                flags = struct.unpack_from(">I", data, place + 16 + skipped)[0]
            elif name == b"trun":
                count += struct.unpack_from(">I", data, place + 12)[0]
                if has & 0x4:
                    flags = struct.unpack_from(">I", data, place + 16 + 4 * (has & 1))[0]
                elif has & 0x400:
                    before = 4 * (has & 1) + 4 * bool(has & 0x100) + 4 * bool(has & 0x200)
                    flags = struct.unpack_from(">I", data, place + 16 + before)[0]
    return count, not flags & _NON_SYNC


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
