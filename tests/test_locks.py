"""Of two that want to work on one folder, the second is told so, and the first is not disturbed."""

from pathlib import Path

import pytest

import play
from envs.play.game.human import HumanTeacher
from envs.recording.record import RecordSession
from midas_world.commands import cli
from midas_world.commands.dream import dream
from midas_world.config import DataConfig, load_preset
from midas_world.data.packing import pack_folder, unpack
from midas_world.locks import BusyError, alone_in
from midas_world.sessions.session import load_session
from midas_world.teachers.collect import CollectConfig, collect
from midas_world.train.autoencoder import train_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.pack import pack_world
from tests.fakes import CountingEnv
from tests.test_dream import request_for

CONFIG = load_preset("tiny")
NO = Path("nowhere")
WORK = {
    "train autoencoder": lambda folder: train_autoencoder(CONFIG, NO, folder),
    "train dynamics": lambda folder: train_dynamics(CONFIG, NO, folder=folder, autoencoder=NO),
    "pack": lambda folder: pack_world(CONFIG, folder, autoencoder=NO, dynamics=NO),
    "collect": lambda folder: collect(
        CollectConfig(data=DataConfig(env_id="a:B-v0"), output=folder, num_episodes=1)
    ),
    "shards pack": lambda folder: pack_folder([], str(folder)),
    "shards unpack": lambda folder: unpack("nowhere", folder),
    "dream": lambda folder: dream(request_for(folder.parent, work=folder)),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_second_one_is_told_that_the_folder_is_taken(tmp_path, work):
    folder = tmp_path / "folder"
    taken = pytest.raises(BusyError, match=r"another midas-world is at work on .*folder: wait")
    with alone_in(folder), taken:
        work(folder)
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".folder.lock"]


def test_a_second_player_of_a_folder_is_told_until_the_first_has_closed(tmp_path):
    class Teacher:
        action_space = observation_space = metadata = render_mode = None
        action_names = action_keys = ()

        def close(self) -> None: ...

    def play() -> HumanTeacher:
        return HumanTeacher(Teacher(), CONFIG.data, folder=tmp_path / "train")

    first = play()
    with pytest.raises(BusyError, match="train"):
        play()
    first.close()
    play().close()


def test_a_second_recording_of_a_folder_is_told_and_the_first_is_whole(
    tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "session"
    env = RecordSession(CountingEnv(), folder)
    env.reset(seed=5)
    env.step(2)
    header = (folder / "header.json").read_bytes()
    words = ["--headless", "--teacher", "--steps", "2", "--record", str(folder)]
    assert play.main(words) == 1
    assert capsys.readouterr().err == f"play: recording ended: {folder} exists already\n"
    env.step(3)
    env.close()
    assert load_session(folder).num_steps == 2
    assert (folder / "header.json").read_bytes() == header


def test_folders_that_differ_are_worked_on_at_once_and_again_afterwards(tmp_path):
    with alone_in(tmp_path / "one"), alone_in(tmp_path / "other"):
        pass
    with alone_in(tmp_path / "one"):
        pass


def test_the_command_says_it_in_a_line(tmp_path, capsys):
    with alone_in(tmp_path / "run" / "autoencoder"):
        words = ["--preset", "tiny", "--output", str(tmp_path / "run")]
        assert cli.main(["train", "autoencoder", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("midas-world train: another midas-world is at work on")
    assert err.count("\n") == 1
