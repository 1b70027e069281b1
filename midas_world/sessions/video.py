"""Films that grow while they are recorded: fragmented MP4 that is whole up to its last frame.

Every frame becomes a fragment of its own ("moof" and "mdat"), handed out as one piece of bytes, so
that whoever appends whole pieces to a file has a film that plays up to where it was cut off. Such a
fragment costs 108 bytes.

Also writes common films that play everywhere. Where files lie, and what a film shows, is the
caller's business.

Shapes: H W frame size.
"""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.data.video import VideoError, fault_of, import_av, tag_colors, to_rgb, to_yuv
from midas_world.files import whole
from midas_world.sessions.film_index import FilmIndex, make_fragment, to_avc
from midas_world.sessions.sound import FilmSound

_PIX_FMT = "yuv420p"  # the one that plays everywhere


class _Encoder:
    """H.264 of frames into an MP4; odd sizes grow by a row or column to even ones.

    Args:
        options: Of libx264.
        params: More of them, in its own notation.

    Raises:
        VideoError: FFmpeg has no libx264.
        ImportError: PyAV is not installed.
    """

    def __init__(
        self,
        target: Any,
        frame_size: tuple[int, int],
        *,
        fps: float,
        movflags: str,
        options: dict[str, str],
        params: str,
    ) -> None:
        self._av = import_av()
        height, width = frame_size
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        try:
            self._av.codec.Codec("libx264", "w")
        except self._av.error.FFmpegError as error:
            raise VideoError(
                f"this FFmpeg cannot encode H.264 (libx264: {error}); PyAV from PyPI can: "
                "pip install --force-reinstall av"
            ) from error
        except ValueError as error:  # UnknownCodecError
            raise VideoError(
                "this FFmpeg has no libx264 to encode H.264; PyAV from PyPI has: "
                "pip install --force-reinstall av"
            ) from error
        self._container = self._av.open(
            target, "w", format="mp4", options={"movflags": movflags, "brand": "mp42"}
        )
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(
            "libx264", rate=self._rate, options={**options, "x264-params": params}
        )
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = _PIX_FMT
        self._stream.codec_context.thread_count = 1
        tag_colors(self._stream.codec_context)
        self._converter = self._av.video.reformatter.VideoReformatter()

    def begin(self) -> Fraction:
        """Write the beginning of the film; return how many of its units of time a frame lasts."""
        self._container.start_encoding()
        return 1 / (self._rate * self._stream.time_base)

    def encode(self, frame: np.ndarray | None) -> list[Any]:
        """Return packets of the next frame, uint8 (H, W, 3), or of None: what was held back."""
        if frame is None:
            return self._stream.encode(None)
        if any(after for _, after in self._padding):
            frame = np.pad(frame, self._padding, mode="edge")
        pixels = np.ascontiguousarray(frame)
        return self._stream.encode(to_yuv(self._av, pixels, _PIX_FMT, converter=self._converter))

    def close(self) -> None:
        """Write the end."""
        self._container.close()


class FragmentWriter:
    """Turns frames into pieces of a fragmented MP4, each of them whole as soon as it is there.

    About 1.1 ms of one thread and 2.4 KB a frame for Stage at 192 x 320, measured on the build
    machine. Without look-ahead and B-frames, so that a frame comes out as soon as it went in.
    FFmpeg's muxer writes the beginning of the film; fragments are made here, since it holds each
    back until the next frame comes, which after a pause is minutes later or never.

    Raises:
        VideoError: FFmpeg has no libx264.
        ImportError: PyAV is not installed.
    """

    def __init__(self, frame_size: tuple[int, int], *, fps: float) -> None:
        self._written: list[bytes] = []
        self._num_frames = 0
        keyframes = max(1, round(fps))  # every second, to jump to
        self._encoder = _Encoder(
            self,
            frame_size,
            fps=fps,
            movflags="frag_custom+empty_moov+default_base_moof",
            options={"crf": "18", "preset": "veryfast", "tune": "zerolatency"},
            params=f"keyint={keyframes}:scenecut=0",
        )
        self._ticks = self._encoder.begin()

    def write(self, data: bytes) -> int:
        """Take bytes of the muxer."""
        self._written.append(bytes(data))
        return len(data)

    def add(self, frame: np.ndarray) -> bytes:
        """Encode a frame, uint8 (H, W, 3); return the film's next bytes, which end with it."""
        return self._take(self._encoder.encode(frame))

    def close(self) -> bytes:
        """Return the last bytes of the film, if any are left."""
        last = self._take(self._encoder.encode(None))
        self._encoder.close()
        return last

    def _take(self, packets: list[Any]) -> bytes:
        """Return the film's beginning, if it was not taken yet, and the packets' fragments."""
        taken = b"".join(self._written)
        self._written.clear()
        for packet in packets:
            time = self._num_frames * self._ticks
            self._num_frames += 1
            taken += make_fragment(
                to_avc(bytes(packet)),
                number=self._num_frames,
                time=round(time),
                duration=round(time + self._ticks) - round(time),
                is_key=packet.is_keyframe,
            )
        return taken


def read_film(
    path: Path, index: FilmIndex, frame_size: tuple[int, int], start: int, stop: int
) -> Iterator[np.ndarray]:
    """Yield the frames start to stop - 1 of a fragmented MP4, uint8 (H, W, 3).

    Raises:
        VideoError: The film cannot be decoded.
        ImportError: PyAV is not installed.
    """
    if not 0 <= start <= stop <= index.num_frames:
        raise ValueError(f"frames must be within 0 to {index.num_frames}, got {start} to {stop}")
    if start == stop:
        return
    av = import_av()
    earlier = index.keyframes[: bisect_right(index.keyframes, start)]
    if not earlier:
        raise VideoError(f"{path}: there is no key frame up to frame {start}")
    number = earlier[-1]
    height, width = frame_size
    try:
        with (
            path.open("rb") as stream,
            av.open(_Part(stream, index, number), format="mp4") as container,
        ):
            for frame in container.decode(video=0):
                if number >= start:
                    yield to_rgb(av, frame)[:height, :width]
                number += 1
                if number == stop:
                    return
    except (av.error.FFmpegError, IndexError) as error:  # no picture in it is an IndexError
        raise VideoError(f"{path}: frame {number} cannot be decoded: {fault_of(error)}") from error
    raise VideoError(f"{path}: ends at frame {number}, {stop} were to be read")


class _Part(io.RawIOBase):
    """A film's header followed by its whole fragments from one on, as a file to read."""

    def __init__(self, stream: Any, index: FilmIndex, fragment: int) -> None:
        super().__init__()
        self._stream = stream
        self._header_size = index.header_size
        self._gap = index.offsets[fragment] - index.header_size
        self._size = index.size - self._gap
        self._place = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read in any order."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if size < 0:
            size = self._size
        in_header = self._place < self._header_size
        end = self._header_size if in_header else self._size
        size = max(0, min(size, end - self._place))
        self._stream.seek(self._place + (0 if in_header else self._gap))
        data = self._stream.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place


class FilmWriter(_Encoder):
    """Writes a common MP4 that plays everywhere, and streams: its index comes first.

    Args:
        path: The file; not whole until `close`.
        crf: libx264's quality, 0 (lossless YUV) to 51.
        has_sound: Whether sound comes with the frames.

    Raises:
        VideoError: FFmpeg has no libx264.
        ImportError: PyAV is not installed.
    """

    def __init__(
        self,
        path: Path,
        frame_size: tuple[int, int],
        *,
        fps: float,
        crf: int = 18,
        has_sound: bool = False,
    ) -> None:
        self.path = path
        self.num_frames = 0
        super().__init__(
            str(path),
            frame_size,
            fps=fps,
            movflags="+faststart",
            options={"crf": str(crf), "preset": "medium", "tune": "animation"},
            params=f"keyint={max(1, round(2 * fps))}",
        )
        self._sound = FilmSound(self._container, fps=fps) if has_sound else None

    def add(self, frame: np.ndarray, sound: np.ndarray | None = None) -> None:
        """Write the next frame, uint8 (H, W, 3), and its sound, int16 (3, 800); None is silence."""
        self._write(frame, sound)
        self.num_frames += 1

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the index."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def close(self) -> None:
        """Finish the file."""
        self._write(None)
        super().close()

    def _write(self, frame: np.ndarray | None, sound: np.ndarray | None = None) -> None:
        """Write the next frame, or with None what was held back."""
        self._container.mux(self.encode(frame))
        if self._sound is not None:
            self._sound.add(sound, is_last=frame is None)


def write_film(
    path: Path,
    frames: Iterable[np.ndarray],
    frame_size: tuple[int, int],
    *,
    fps: float,
    crf: int = 18,
    sounds: Iterable[np.ndarray] | None = None,
) -> int:
    """Write frames, uint8 (H, W, 3), as an MP4 that plays everywhere; return how many."""
    heard = repeat(None) if sounds is None else sounds
    with whole(path) as place:
        writer = FilmWriter(place, frame_size, fps=fps, crf=crf, has_sound=sounds is not None)
        for frame, sound in zip(frames, heard, strict=False):
            writer.add(frame, sound)
        writer.close()
    return writer.num_frames


def copy_film(
    source: Path,
    index: FilmIndex,
    target: Path,
    *,
    stop: int,
    fps: float,
    sounds: Iterable[np.ndarray] | None = None,
) -> None:
    """Write the first frames of a fragmented MP4 as a common one, without encoding them again."""
    av = import_av()
    options = {"movflags": "+faststart", "brand": "mp42"}
    try:
        with (
            whole(target) as place,
            source.open("rb") as stream,
            av.open(_Part(stream, index, 0), format="mp4") as film,
            av.open(str(place), "w", format="mp4", options=options) as container,
        ):
            copied = container.add_stream_from_template(film.streams.video[0])
            sound = FilmSound(container, fps=fps) if sounds is not None else None
            heard = iter(sounds or ())
            for number, packet in enumerate(film.demux(video=0)):
                if number == stop or packet.dts is None:
                    break
                packet.stream = copied
                container.mux(packet)
                if sound is not None:
                    sound.add(next(heard))
            if sound is not None:
                sound.add(None, is_last=True)
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"{source} cannot be copied: {fault_of(error)}") from error
