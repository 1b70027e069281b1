import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from midas_world.data.episodes import is_episode, iter_episodes, list_episodes
from midas_world.teachers.collect import choose_policy, collect, make_env, play_episode
from tests.disc_env import config_for


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder of episodes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder of five episodes, collected by one worker."""
    output = tmp_path_factory.mktemp("uninterrupted")
    result = collect(config_for(output))
    assert (result.collected, result.skipped, result.failed, result.exit_code) == (5, 0, {}, 0)
    return output


def test_episodes_are_named_and_filled_by_their_seeds(uninterrupted):
    names = [path.name for path in list_episodes(uninterrupted)]
    assert names == [f"episode-{seed:08d}" for seed in range(40, 45)]
    played = list(iter_episodes(uninterrupted))
    assert {episode.metadata.policy for episode in played} == {"runner", "idler"}
    for seed, episode in enumerate(played, start=40):
        assert episode.metadata.seed == seed
        assert episode.metadata.scene == {"place": "void"}
        assert list(episode.extras) == ["hearts"]


def test_two_workers_collect_what_one_collects(uninterrupted, tmp_path):
    result = collect(config_for(tmp_path, num_workers=2))
    assert result.frames == sum(len(episode.frames) for episode in iter_episodes(tmp_path))
    assert contents(tmp_path) == contents(uninterrupted)


def test_a_failing_or_dying_seed_is_reported_and_the_others_go_on(tmp_path, caplog):
    wrong = {"failing": [41], "dying": [43]}
    config = config_for(tmp_path, num_workers=2, env_kwargs=wrong, codec="raw")
    result = collect(config)
    assert (result.collected, result.exit_code) == (3, 1)
    assert result.failed.keys() == {41, 43}
    assert "ArithmeticError: the disc is gone" in result.failed[41]
    assert result.failed[43] == "its worker died with code 9"
    assert "episode of seed 41 failed" in caplog.text
    assert list_episodes(tmp_path) == [config.path_of(seed) for seed in (40, 42, 44)]
    with make_env(config.data) as env:
        for episode, seed in zip(iter_episodes(tmp_path), (40, 42, 44), strict=True):
            expected = play_episode(env, config.data, seed).frames
            np.testing.assert_array_equal(episode.frames, expected)


@pytest.mark.timeout(60)
def test_what_is_enough_ends_workers_that_hear_no_signal(tmp_path):
    engine = tmp_path / "engine"
    kwargs = {"deaf": True, "engine": str(engine)}
    config = config_for(tmp_path / "data", num_episodes=1000, num_workers=1, env_kwargs=kwargs)
    asked = []

    def enough(frames: int, failed: int) -> bool:
        asked.append((frames, failed))
        return frames > 30

    result = collect(config, enough=enough)
    assert 30 < result.frames < 60
    assert result.collected == len(asked) == len(list_episodes(tmp_path / "data"))
    assert asked[-1] == (result.frames, 0)
    assert result.exit_code == 0
    state = Path(f"/proc/{engine.read_text()}/stat")  # nor is what the env started left behind
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_full_disk_ends_the_run_and_is_named(tmp_path, caplog):
    result = collect(config_for(tmp_path, env_kwargs={"disk_full": [42]}))
    assert (result.collected, list(result.failed), result.exit_code) == (2, [42], 1)
    assert "disk full" in result.failed[42]
    assert "2 not tried" in caplog.text


def test_a_wrong_env_or_policy_fails_before_workers_start(tmp_path):
    with pytest.raises(gymnasium.error.NameNotFound):
        collect(config_for(tmp_path, env_id="tests.disc_env:Fake/Nothing-v0"))
    with pytest.raises(ValueError, match="must be \"module:function\", got 'nowhere:at_all'"):
        collect(config_for(tmp_path, policy_factory="nowhere:at_all"))


def end_after(seed: int, output: Path, kind: signal.Signals) -> None:
    """Collect in another process, and send it a signal when this seed, but no later one, is there.

    Its two workers are in the midst of the next episodes then.
    """
    code = (
        # A shell's background jobs ignore SIGINT, and their children inherit that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import pathlib, midas_world.teachers.collect, tests.disc_env\n"
        f"config = tests.disc_env.config_for(pathlib.Path({str(output)!r}), num_workers=2)\n"
        "midas_world.teachers.collect.collect(config)"
    )
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "DISC_STUCK_FROM": str(seed + 1)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 100
        while not is_episode(config_for(output).path_of(seed)):
            assert process.poll() is None, "the collector ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if kind == signal.SIGINT:
            os.killpg(process.pid, kind)  # As a terminal does.
        else:
            process.send_signal(kind)
        # Workers hold the pipe too, so this waits until they have ended.
        process.communicate(timeout=60)


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_after_ctrl_c_and_a_kill_a_rerun_finishes_what_is_left(uninterrupted, tmp_path):
    config = config_for(tmp_path)
    end_after(40, tmp_path, signal.SIGINT)
    assert list(tmp_path.iterdir()) == [config.path_of(40)]
    end_after(41, tmp_path, signal.SIGKILL)
    assert list_episodes(tmp_path) == [config.path_of(40), config.path_of(41)]
    (tmp_path / ".tmp-episode-00000042-0123").mkdir()  # As when it is killed while it saves.
    result = collect(config)
    assert (result.collected, result.skipped, result.exit_code) == (3, 2, 0)
    assert contents(tmp_path) == contents(uninterrupted)
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_horizon_truncates_and_the_env_terminates():
    config = config_for(Path("unused"), num_steps=12)
    with make_env(config.data) as env:
        for seed in range(40, 46):
            episode = play_episode(env, config.data, seed)
            if choose_policy(config.data, seed) == "runner":
                assert episode.num_steps == 9
                assert (episode.terminated[-1], episode.truncated[-1]) == (True, False)
            else:
                assert episode.num_steps == 12
                assert (episode.terminated[-1], episode.truncated[-1]) == (False, True)
            assert not episode.terminated[:-1].any()
            assert not episode.truncated[:-1].any()


def test_an_observation_that_is_no_picture_is_an_error():
    any_env = {"policy_factory": "", "policies": {"random": 1.0}}
    config = config_for(Path("unused"), env_id="CartPole-v1", **any_env)
    with make_env(config.data) as env, pytest.raises(ValueError, match=r"frames must be .* uint8"):
        play_episode(env, config.data, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1, got 0"),
        ({"num_workers": 0}, "num_workers"),
        ({"first_seed": -1}, "first_seed"),
        ({"policies": {"random": 0.0}}, "positive weights"),
    ],
)
def test_config_has_limits(changes, message):
    with pytest.raises(ValueError, match=message):
        config_for(Path("unused"), **changes)
