"""Frames in a file: H.264 or lossless uint8 for episodes, and a GIF to show around.

PyAV ("av") is imported only when it is needed: raw frames go without. What lies beside the frames,
and whether a file is whole, is the caller's business (episodes.py); films that grow while they are
recorded are sessions/video.py's.

Colour: frames are sRGB; H.264 holds BT.709 in limited range, and is tagged so. libswscale rounds
limited range without bias (mean error under 0.04 of 255 on noise, 52 dB), full range with a bias of
nearly 1, which is why limited range is the more faithful one here.

Shape letters: N frames of H x W pixels.
"""

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from midas_world.types import MidasWorldError

FRAMES_FILES = {"h264": "video.mp4", "raw": "frames.safetensors"}
"""The name of the file that holds an episode's frames, by codec."""

_LIMITED_RANGE = 1  # "MPEG" among FFmpeg's colour ranges
_BT709 = 1  # among FFmpeg's colour spaces, primaries and transfer curves


class VideoError(MidasWorldError, ValueError):
    """A video cannot be decoded, or holds another number of frames; the message says which."""


Codec = Literal["h264", "raw"]
"""How frames are stored: "h264" needs PyAV; "raw" is lossless and large."""

H264 = {"crf": 10, "pix_fmt": "yuv444p", "preset": "veryfast", "tune": "psnr", "threads": 1}
"""How libx264 stores frames: with full colour resolution, and near to the pixels.

Measured on 600 frames of Stage at 192 x 320, one thread; PSNR over RGB of what is read back:

    =====================================  =======  ==========
    options                                PSNR     KB / frame
    =====================================  =======  ==========
    yuv444p, crf 8, tune psnr              47.0 dB  7.7
    yuv444p, crf 10, tune psnr (these)     46.1 dB  6.4
    yuv444p, crf 12, tune psnr             45.0 dB  5.3
    yuv444p, crf 10, tune animation        43.3 dB  4.5
    yuv444p, crf 0 (lossless YUV)          52.1 dB  14.4
    yuv420p, crf 10, tune psnr             36.1 dB  4.5
    raw                                    exact    184.3
    =====================================  =======  ==========

They encode about 350 and decode about 600 frames a second. One thread gives the same bytes whatever
the number of cores.
"""


def write_frames(folder: Path, frames: np.ndarray, *, codec: Codec, fps: float) -> Path:
    """Write (N, H, W, 3) uint8 frames into the file of their codec in `folder`; return its path.

    Raises:
        ValueError: H or W is odd, which H.264 cannot hold.
        ImportError: codec "h264" without PyAV.
    """
    file = folder / FRAMES_FILES[codec]
    if codec == "h264":
        _write_h264(file, frames, fps=fps)
    else:
        file.write_bytes(safetensors.numpy.save({"frames": np.ascontiguousarray(frames)}))
    return file


def read_frames(contents: bytes, shape: tuple[int, int, int, int], *, codec: Codec) -> np.ndarray:
    """Return the frames of what write_frames wrote into a file, of this shape (N, H, W, 3).

    Raises:
        VideoError: the video cannot be decoded, or does not hold N frames.
        ImportError: the frames are H.264 and PyAV is not installed.
    """
    if codec == "h264":
        return _read_h264(contents, shape)
    return safetensors.numpy.load(contents)["frames"]


def write_gif(file: Path, frames: Sequence[np.ndarray], *, fps: float) -> None:
    """Write (H, W, 3) uint8 frames as a looping GIF with a palette of its own colours."""
    av = import_av()
    height, width, _ = frames[0].shape
    rate = Fraction(fps).limit_denominator(1000)
    time_base = 1 / rate
    with av.open(str(file), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base
        )
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=full")
        use = graph.add("paletteuse", "dither=bayer:bayer_scale=4")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(palette, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, time_base
            graph.push(picture)
        graph.push(None)
        for _ in frames:
            container.mux(stream.encode(graph.pull()))
        container.mux(stream.encode(None))


def import_av() -> ModuleType:
    """Return PyAV; ImportError says how to get it."""
    try:
        import av
        import av.filter
    except ModuleNotFoundError as error:
        message = 'H.264 and GIF need PyAV: pip install av; or record with codec="raw"'
        raise ImportError(message) from error
    return av


def fault_of(error: Exception) -> str:
    """Return what is wrong with a film or sound that FFmpeg failed to read.

    Of a length that only damage writes, FFmpeg says that it cannot allocate memory.
    """
    if isinstance(error, MemoryError):
        return "it is damaged: it claims a length that no memory holds"
    return str(error)


def to_yuv(av: ModuleType, pixels: np.ndarray, pix_fmt: str, *, converter: Any = None) -> Any:
    """Return (H, W, 3) uint8 pixels as a PyAV frame for H.264; H and W must be even for 4:2:0.

    Args:
        av: What `import_av` returned.
        pixels: uint8 (H, W, 3).
        pix_fmt: FFmpeg's name of the layout.
        converter: A `VideoReformatter` of PyAV that was used for the frame before, in the same
            thread; to make one costs more than converting a frame. None makes one.
    """
    return (converter or av.video.reformatter.VideoReformatter()).reformat(
        av.VideoFrame.from_ndarray(pixels, format="rgb24"),
        format=pix_fmt,
        dst_colorspace="itu709",
        dst_color_range=_LIMITED_RANGE,
        interpolation=_scaling(av),
        # One for each processor, as by default, cost more than they save: frames are small.
        threads=1,
    )


def to_rgb(av: ModuleType, frame: Any) -> np.ndarray:
    """Return a PyAV frame of our H.264 as (H, W, 3) uint8 pixels."""
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace="itu709",
        src_color_range=_LIMITED_RANGE,
        interpolation=_scaling(av),
    )
    return rgb.to_ndarray()


def tag_colors(context: Any) -> None:
    """Let a PyAV codec context say in the file how `to_yuv` lays out colours."""
    context.color_range = _LIMITED_RANGE
    context.colorspace = context.color_primaries = context.color_trc = _BT709


def _scaling(av: ModuleType) -> int:
    # Without these flags 4:2:0 comes out darker by one level of 255.
    kind = av.video.reformatter.Interpolation
    return kind.BICUBIC | kind.ACCURATE_RND | kind.FULL_CHR_H_INT | kind.FULL_CHR_H_INP


def _write_h264(file: Path, frames: np.ndarray, *, fps: float) -> None:
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f'codec "h264" needs an even frame size, got {height} x {width}')
    av = import_av()
    rate = Fraction(fps).limit_denominator(1001)
    options = {name: str(H264[name]) for name in ("crf", "preset", "tune")}
    # Macroblock-tree makes libx264's output differ from run to run, even on one thread (seen with
    # AVX-512), and takes bits from what is soon out of sight, which training sees all the same.
    options["x264-params"] = "mbtree=0"
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, H264["pix_fmt"]
        context = stream.codec_context
        context.thread_count = H264["threads"]
        tag_colors(context)
        for pixels in frames:
            container.mux(stream.encode(to_yuv(av, pixels, stream.pix_fmt)))
        container.mux(stream.encode())


def _read_h264(contents: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    av = import_av()
    frames = np.empty(shape, np.uint8)
    count = 0
    try:
        with av.open(BytesIO(contents)) as container:
            for frame in container.decode(video=0):
                if count < len(frames):
                    frames[count] = to_rgb(av, frame)
                count += 1
    except (av.error.FFmpegError, ValueError, IndexError) as error:  # no picture: IndexError
        raise VideoError(f"frame {count} cannot be decoded: {fault_of(error)}") from error
    if count != len(frames):
        raise VideoError(f"holds {count} frames, the header says {len(frames)}")
    return frames
