"""What Gymnasium, Stable-Baselines3 and their wrappers ask of every mode; of ids: test_every_id."""

import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    RecordEpisodeStatistics,
    RecordVideo,
    ResizeObservation,
)
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import envs  # noqa: F401 - registers the ids
from envs.world.spaces import ACTIONS, OBSERVATIONS
from envs.world.vector_env import WorldVectorEnv

ROOT = Path(__file__).parents[1]
WORLD = "midas/Stage-v0"


def make_bare(world: Path, **kwargs) -> gym.Env:
    return gym.make(WORLD, world=str(world), **kwargs).unwrapped


# Warnings are errors in all tests.
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_gymnasium_s_checker_has_nothing_to_say(tiny_folder, observation, action):
    env = make_bare(tiny_folder, observation=observation, action=action, render_mode="rgb_array")
    # The other render modes do not depend on the action mode, and each loads the world again.
    is_first = action == "discrete"
    check_env(env, skip_render_check=not is_first, skip_close_check=not is_first)
    env.close()
    env.close()


# Stable-Baselines3 has no Dict actions, and takes an observation of two dimensions only flat.
@pytest.mark.parametrize("action", ["discrete", "keys"])
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_stable_baselines3_s_checker_has_nothing_to_say(tiny_folder, observation, action):
    env = make_bare(tiny_folder, observation=observation, action=action, render_mode="rgb_array")
    check_env_of_sb3(FlattenObservation(env) if observation == "latent" else env)


def test_a_vector_spec_survives_pickling(tiny_folder):
    games = gym.make_vec(WORLD, num_envs=2, world=tiny_folder, autoreset_mode="SameStep")
    again = gym.make_vec(pickle.loads(pickle.dumps(games.spec)))
    assert isinstance(again, WorldVectorEnv)
    assert again.num_envs == 2
    assert again.metadata["autoreset_mode"] == games.metadata["autoreset_mode"]


def test_wrappers_wrap(tiny_folder, tmp_path):
    env = gym.make(WORLD, world=str(tiny_folder), render_mode="rgb_array", max_episode_steps=4)
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda _: True)
    env = FrameStackObservation(ResizeObservation(RecordEpisodeStatistics(env), (24, 40)), 3)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (3, 24, 40, 3)
    truncated = False
    for step in range(4):
        assert not truncated, step
        observation, _, _, truncated, info = env.step(4)
    assert truncated
    assert info["episode"]["l"] == 4
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.stat().st_size > 500


def run(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = [str(folder) for folder in folders]
    code = f"import sys; sys.path[:0] = {path!r}; {code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")


MAKE = (
    "import envs, engine, envs.theirs, engine.theirs; "
    "from midas_world.environments import WorldEnv; "
    "said = envs.theirs.WHOSE, engine.theirs.WHOSE, WorldEnv.__module__; "
    "print(*said, envs.__file__, engine.__file__, sep=chr(10))"
)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_project_with_packages_of_our_names_has_both(tmp_path):
    # The second is a folder without an __init__.py.
    theirs = {"envs/theirs.py": "WHOSE = 'mine'", "engine/theirs.py": "WHOSE = 'mine, too'"}
    write(tmp_path, {"envs/__init__.py": ""} | theirs)
    done = run(MAKE, tmp_path, ROOT)
    made = done.stdout.splitlines()
    assert made[:3] == ["mine", "mine, too", "envs.world.env"], done.stderr
    assert [str(tmp_path) in path for path in made[3:]] == [True, False]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"engine/make.py": "", "engine/__init__.py": ""},
            ": both have make. Rename the other one",
        ),
        ({"engine.py": ""}, ". Rename the other one"),
        ({"envs/world/__init__.py": "", "envs/__init__.py": ""}, ": both have world. Rename"),
    ],
)
def test_packages_that_cannot_be_joined_are_named_and_refused(tmp_path, files, says):
    write(tmp_path, files)
    done = run("from midas_world.environments import WorldEnv", tmp_path, ROOT)
    other = tmp_path / min(files).split("/")[0]
    name = other.stem
    assert done.returncode == 1
    assert f"the package {name!r} that Python finds, {other}, is not midas-world's" in done.stderr
    assert says in done.stderr
    assert f"PYTHONPATH={ROOT}" in done.stderr


def test_another_envs_is_named_and_refused_where_a_file_asks_for_it(tmp_path):
    write(tmp_path, {"envs/__init__.py": "print('run')"})
    code = "from midas_world.packages import check_packages; check_packages('envs')"
    done = run(code, tmp_path, ROOT)
    assert not done.stdout
    assert f"the package 'envs' that Python finds, {tmp_path / 'envs'}, is not" in done.stderr
