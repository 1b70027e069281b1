"""Offline data sets of the teacher and of the dream, as Minari datasets, with reference scores.

    python -m examples.offline --output datasets --ppo runs/ppo

Makes `stage/teacher-random-v0`, `-mixed-v0` and `-expert-v0`, and the same of `stage/dream`; read
them with MINARI_DATASETS_PATH=datasets. The teacher's expert is the scripted one, told where things
lie. Nobody knows that of a dream: its expert is what train_ppo.py trained there, and without --ppo
there are no datasets of it. Episodes of "mixed" are by turns of both. The reference scores are the
mean returns of "random" and "expert".
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import trange

from envs.choices import Choices
from envs.stage.policies import ExpertPolicy, Policy, RandomPolicy
from midas_world.edge import run_command
from midas_world.packages import needs

with needs("offline", extra="rl", error=SystemExit):
    import minari

    from examples.games import GameConfig
    from examples.ppo import TrainedPolicy

# No policy is trained or judged on these seeds, and no world.
FIRST_SEED = 900_000


def play_episode(env: gym.Env[Any, Any], policy: Policy, *, seed: int) -> float:
    """Play an episode and return what it brought."""
    policy.reset(np.random.default_rng(seed))
    frame, info = env.reset(seed=seed)
    total, is_over = 0.0, False
    while not is_over:
        frame, reward, terminated, truncated, info = env.step(policy.act(frame, info))
        total += float(reward)
        is_over = terminated or truncated
    return total


def make_datasets(
    make: Callable[[], gym.Env[Any, Any]], name: str, expert: Policy, *, num_episodes: int
) -> list[str]:
    """Write the three datasets of an environment and return their ids.

    Args:
        make: Returns the environment.
        name: Of the datasets, before their kind.
        expert: Plays the episodes of "expert", and every second one of "mixed".
        num_episodes: Of each dataset.
    """
    chance = RandomPolicy()
    policies = {"random": [chance], "mixed": [chance, expert], "expert": [expert]}
    envs = {kind: minari.DataCollector(make(), record_infos=True) for kind in policies}
    scores = {}
    for kind, env in envs.items():
        returns = [
            play_episode(
                env, policies[kind][number % len(policies[kind])], seed=FIRST_SEED + number
            )
            for number in trange(num_episodes, desc=f"{name}-{kind}", unit="episode")
        ]
        scores[kind] = float(np.mean(returns))
    ids = []
    for kind, env in envs.items():
        dataset = env.create_dataset(
            f"{name}-{kind}-v0",
            algorithm_name=kind,
            eval_env=env.env,
            author="midas-world",
            author_email="-",
            code_permalink="examples/offline.py",
            ref_min_score=scores["random"],
            ref_max_score=scores["expert"],
            description=f"Mean return {scores[kind]:.2f} of {num_episodes} episodes.",
        )
        env.close()
        ids.append(dataset.id)
    return ids


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the datasets."""
    games = GameConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("datasets"), help="folder of datasets")
    parser.add_argument(
        "--ppo", type=Path, help="folder of train_ppo.py; None: no dream's datasets"
    )
    parser.add_argument("--world", default="stage", help="a shipped world's name or a folder")
    parser.add_argument("--episodes", type=int, default=20, help="of each dataset")
    parser.add_argument("--horizon", type=int, default=games.horizon)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ["MINARI_DATASETS_PATH"] = str(options.output.resolve())

    def make_teacher() -> gym.Env[Any, Any]:
        return Choices(gym.make(games.teacher_id, horizon=options.horizon), infos="numeric")

    def make_dream() -> gym.Env[Any, Any]:
        own = {"world": options.world, "horizon": options.horizon, "infos": "numeric"}
        return gym.make(games.world_id, **own)

    count = options.episodes
    ids = make_datasets(make_teacher, "stage/teacher", ExpertPolicy(), num_episodes=count)
    if options.ppo is not None:
        expert = TrainedPolicy(options.ppo / "dream-0.safetensors", games)
        ids += make_datasets(make_dream, "stage/dream", expert, num_episodes=count)
    print("\n".join(ids))


if __name__ == "__main__":
    sys.exit(run_command("offline", main, sys.argv[1:]))
