"""TorchRL takes every id, and vectors of worlds and teachers that begin anew by themselves."""

from functools import partial

import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode

from midas_world.environments import Choices

torchrl = pytest.importorskip("torchrl")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

IDS = sorted(name for name in gym.registry if name.startswith("midas/"))


def check(env) -> None:
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    games = GymWrapper(env)
    check_env_specs(games)
    steps = games.rollout(8, break_when_any_done=False)
    assert steps["next", "done"].flatten(1)[0].tolist() == [False, False, True] * 2 + [False] * 2


@pytest.mark.parametrize("name", IDS)
def test_torchrl_s_checker_has_nothing_to_say(name, tiny_folder, tmp_path, monkeypatch):
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    if "Doom" in name:
        pytest.importorskip("vizdoom")
        monkeypatch.chdir(tmp_path)  # it writes where it is started
    is_teacher = "Teacher" in name or "Doom" in name
    options = {} if is_teacher else {"world": str(tiny_folder), "backend": "torch:float32"}
    env = GymWrapper(gym.make(name, **options))
    check_env_specs(env)
    # A game that begins where its goal lies is over at once.
    assert env.rollout(3, break_when_any_done=False).batch_size == (3,)
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("observation", ["pixels", "latent", "dict"])
def test_vectors_of_worlds_begin_anew_by_themselves(tiny_folder, observation, mode):
    options = {"world": str(tiny_folder), "backend": "torch:float32", "observation": observation}
    options |= {"autoreset_mode": mode, "horizon": 3, "infos": "numeric"}
    check(gym.make_vec("midas/Stage-v0", 2, **options))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_vectors_of_teachers_begin_anew_by_themselves(mode):
    options = {"vector_kwargs": {"autoreset_mode": mode}, "horizon": 3}
    numeric = [partial(Choices, infos="numeric")]
    check(gym.make_vec("midas/StageTeacher-v0", 2, "sync", wrappers=numeric, **options))
