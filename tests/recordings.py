"""For tests of imports: recordings of every kind whose pictures tell their number, and what was
done at each.
"""

import contextlib
import csv
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from PIL import Image

from envs.recording.record import RecordSession
from midas_world.commands.cli import main
from midas_world.config import ProjectConfig, load_config
from midas_world.data.episodes import Episode, list_episodes, load_episode
from midas_world.sessions.export.lerobot_dataset import export_lerobot
from midas_world.sessions.export.minari_dataset import export_minari
from midas_world.sessions.session import load_session

NAMES = ("idle", "left", "right")
SIZE = (96, 160)
KEYMAP = "actions: {idle: {}, left: {keys: [left]}, right: {keys: [right]}}\n"
AXES_KEYMAP = "actions: {idle: {value: [0, 0]}, left: {value: [-1, 0]}, right: {value: [1, 0]}}\n"


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a picture whose grey tells its number, up to 25."""
    return np.full((*size, 3), 16 + 8 * (number % 26), np.uint8)


def number_of(frame: np.ndarray) -> int:
    return round((frame.mean() - 16) / 8)


def done_at(number: int) -> str:
    """Return what is done at a picture of a number."""
    return NAMES[number % 26 % 3]


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    rate: int | Fraction = 20,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    gop: int = 10,
    sound: np.ndarray | None = None,
) -> Path:
    """Write a film.

    Args:
        times: Of each picture, s; None: of the rate.
        sound: (A,) int16 at 16 kHz.
    """
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=rate)
        stream.height, stream.width, _ = pictures[0].shape
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        voice = None if sound is None else film.add_stream("pcm_s16le", rate=16_000)
        if voice is not None:
            voice.layout = "mono"
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
        if voice is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            film.mux(voice.encode(frame))
            film.mux(voice.encode())
    return path


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_film(folder: Path, count: int = 120, **options) -> Path:
    """Return a film with a table of an action for each of its pictures."""
    path = write_film(folder / "play.mkv", [picture(n) for n in range(count)], **options)
    write_table(folder / "play.csv", [{"action": done_at(n)} for n in range(count)])
    return path


def make_pictures(folder: Path, count: int = 120) -> Path:
    place = folder / "кадры"
    place.mkdir()
    for number in range(count):
        Image.fromarray(picture(number)).save(place / f"frame{number}.png")
    write_table(place / "действия.csv", [{"action": done_at(n)} for n in range(count)])
    return place


def told_at(number: int) -> dict[str, np.ndarray]:
    """Return the pose of 4 numbers, and the audio features, of a picture of a number."""
    share = np.float32(number / 60)
    return {"pose": np.full(4, share - 0.5), "audio": np.full(40, share)}


class NumberedEnv(gym.Env):
    """Shows its step's number, and tells it; episodes of 60 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    action_names = NAMES
    action_keys = {"left": ["left"], "right": ["right"]}  # noqa: RUF012

    def __init__(self):
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Box(0, 255, (*SIZE, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return picture(0), told_at(0)

    def step(self, action):
        self.count += 1
        ends = self.count >= 60
        return picture(self.count), float(action == 2), ends, False, told_at(self.count)


def make_session(folder: Path, num_steps: int = 60) -> Path:
    """Record two episodes of so many steps."""
    place = folder / "session"
    with contextlib.closing(RecordSession(NumberedEnv(), place)) as env:
        for _ in range(2):
            env.reset(seed=1)
            for number in range(num_steps):
                env.step(NAMES.index(done_at(number)))
    return place


def make_minari(folder: Path, num_steps: int = 60) -> Path:
    return folder / export_minari(load_session(make_session(folder, num_steps)), folder)


def make_minari_tables(folder: Path, data_format: str, *, is_jpeg: bool) -> Path:
    """Return the dataset of `make_minari` as Minari itself writes it in another format."""
    from minari import MinariDataset
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    made = MinariDataset(make_minari(folder) / "data")
    place = folder / data_format
    place.mkdir()
    observations = spaces.Dict({"speed": spaces.Box(0, 1, (2,)), "pixels": made.observation_space})
    storage = MinariStorage.new(
        place,
        observation_space=observations,
        action_space=made.action_space,
        data_format=data_format,
        jpeg_encoding=is_jpeg,
    )
    for episode in made.iterate_episodes():
        values = {name: getattr(episode, name) for name in (
            "actions", "rewards", "terminations", "truncations")}  # fmt: skip
        speed = np.zeros((len(episode.observations), 2), np.float32)
        both = {"speed": speed, "pixels": episode.observations}
        storage.update_episodes([EpisodeBuffer(observations=both, **values)])
    return place


def make_lerobot(folder: Path, num_steps: int = 60) -> Path:
    export_lerobot(load_session(make_session(folder, num_steps)), folder / "lerobot")
    return folder / "lerobot"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "film": make_film,
    "pictures": make_pictures,
    "session": make_session,
    "minari": make_minari,
    "lerobot": make_lerobot,
}
TABLES: dict[str, Callable[[Path], Path]] = {
    "arrow": functools.partial(make_minari_tables, data_format="arrow", is_jpeg=True),
    "parquet": functools.partial(make_minari_tables, data_format="parquet", is_jpeg=False),
}
OPTIONS = {kind: ["--source-fps", "20"] for kind in ("pictures", "minari", "arrow", "parquet")}


def import_to(folder: Path, *words: object) -> int:
    """Run the command with the tiny preset."""
    return main(["import", *map(str, words), "--to", str(folder), "--preset", "tiny"])


def project_in(folder: Path) -> ProjectConfig:
    """Return the preset of a data folder called "data"."""
    return load_config(ProjectConfig, folder / "data.yaml")


def episodes_in(folder: Path, part: str = "*") -> list[Episode]:
    """Return the episodes of a part of a data folder, or of all."""
    folders = [place for place in folder.glob(part) if place.is_dir()]
    return [load_episode(path) for place in folders for path in list_episodes(place)]


def deeds(episode: Episode) -> list[tuple[int, str]]:
    """Return the number of each frame but the last, and what was done then."""
    names = episode.metadata.details["action_names"]
    pairs = zip(episode.frames, episode.actions, strict=False)
    return [(number_of(frame), names[action]) for frame, action in pairs]
