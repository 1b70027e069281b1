"""Does the dream rank policies as the game does? Returns of 25 policies in both, and their order.

    python -m examples.rank --output runs/rank

Six favourite actions, taken always, in two of three or in one of three choices, and chance between;
chance alone; and leaping and running by turns: policies that look at nothing, so that nobody
trained them for one side. The scripted expert, who is told what lies near, in all choices and in
four shares of them, with chance between: the strong ones. `--ppo runs/ppo` adds those of
train_ppo.py. Games begin where dreams do, in the pose, place and scene of the same start states:
who runs already goes far by jumping. The rank correlation is Spearman's; its interval is that of
1,000 draws of the policies with repetition. The teacher plays all of it a second time, on other
seeds: how far it agrees with itself is the most that so few episodes can show.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

from engine import Engine
from engine.shared import shared_engine, shared_world
from envs.play.game.agents import Seer
from envs.stage.env import StageEnv
from envs.stage.picture import objects_of_things
from envs.stage.policies import ExpertPolicy, Policy
from envs.tasks import TASKS
from envs.world.env import WorldEnv
from examples.actions import ACTION_INDICES, ACTION_NAMES
from midas_world.edge import run_command
from midas_world.files import write_whole
from midas_world.packages import needs
from midas_world.tables import table_lines
from midas_world.world import World

with needs("rank", extra="rl", error=SystemExit):
    from stable_baselines3.common.vec_env import VecEnv

    from envs.sb3 import Sb3Games
    from examples.games import (
        Choose,
        GameConfig,
        Played,
        choose_always,
        choose_at_random,
        make_games,
        play,
        play_alone,
    )
    from examples.ppo import load_choice

# No policy is trained on these seeds, and no world.
FIRST_SEED = 950_000
EXPERT_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
_TEACHER_ID = "midas-examples/Begins-v0"


def blind_policies(seed: int) -> dict[str, Choose]:
    """Return 20 policies that look at nothing, by name."""
    policies = {"random": choose_at_random(seed), "leap_right, run_right": _by_turns()}
    for name in ACTION_NAMES:
        for share in (1.0, 2 / 3, 1 / 3):
            policies[f"{name} {share:.0%}"] = choose_always(name, share=share, seed=seed)
    return policies


class Distracted:
    """The scripted expert, but for choices in which chance plays."""

    def __init__(self, expert: Policy, *, share: float, frame_skip: int) -> None:
        self._expert, self._share, self._frame_skip = expert, share, frame_skip

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng, self._num_left = rng, 0
        self._expert.reset(rng)

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the expert's action, or the one that is held in this choice."""
        action = self._expert.act(observation, info)
        if self._num_left == 0:
            self._num_left = self._frame_skip
            is_expert = self._rng.random() < self._share
            self._held = None if is_expert else int(self._rng.choice(ACTION_INDICES))
        self._num_left -= 1
        return action if self._held is None else self._held


class BeginsThere(gym.Wrapper[Any, Any, Any, Any]):
    """The teacher, beginning the episode of a seed in one of some states of its conditioner."""

    def __init__(self, states: Sequence[Mapping[str, np.ndarray]], **options: Any) -> None:
        super().__init__(StageEnv(**options))
        self._states = states

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode; those that follow by themselves begin anywhere."""
        if seed is not None:
            state = self._states[(seed - FIRST_SEED) % len(self._states)]
            options = {"conditioner_state": state}
        return self.env.reset(seed=seed, options=options)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Games of one side, which from FIRST_SEED on begin as those of the other.

    Attributes:
        many: For policies that see pictures.
        one: For those that are told what lies near.
        look: Tells it, where infos do not.
    """

    many: VecEnv
    one: gym.Env[Any, Any]
    look: Callable[[], np.ndarray] | None = None

    def play(self, choose: Choose | float, games: GameConfig, seeds: Sequence[int]) -> Played:
        """Play an episode from each seed by choices, or by a share of the expert's."""
        if callable(choose):
            return play(self.many, choose, seeds=seeds)
        expert = ExpertPolicy() if self.look is None else Seer(ExpertPolicy(), self.look)
        skip = games.frame_skip
        policy = Distracted(expert, share=choose, frame_skip=skip)
        return play_alone(self.one, policy, seeds=seeds, policy_seed=0, frame_skip=skip)

    def close(self) -> None:
        """Close all games."""
        self.many.close()
        self.one.close()


def make_sides(games: GameConfig, world: World, engine: Engine) -> tuple[Side, Side]:
    """Return games and dreams, which from FIRST_SEED on begin alike; games do so again and again.

    Args:
        games: As many as there are episodes.
        world: The dream's.
        engine: Of the world.
    """
    dream = make_games(games.world_id, games, world=world, engine=engine)
    dream.seed(FIRST_SEED)
    dream.reset()
    told = cast("Sb3Games", dream.unwrapped).reset_infos
    states = [world.start_states[info["start_state"]].conditioner_state for info in told]
    rules = {"task": games.task, "horizon": games.horizon}
    one = WorldEnv(world, engine=engine, observation="latent", **rules)
    gym.register(_TEACHER_ID, BeginsThere, kwargs={"states": states, "task": games.task})
    try:
        many = make_games(_TEACHER_ID, games)
    finally:
        del gym.registry[_TEACHER_ID]
    return (
        Side(many=many, one=BeginsThere(states, **rules)),
        Side(many=dream, one=one, look=lambda: objects_of_things(one.things())),
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rho of two rows of numbers; 0 where one is all equal."""
    ranks = np.stack([_ranks(np.asarray(values, float)) for values in (first, second)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(1).all() else 0.0


def interval(first: Sequence[float], second: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return what 95 % of draws of the policies with repetition lie between."""
    rng = np.random.default_rng(seed)
    both = np.array((first, second))
    draws = rng.integers(both.shape[1], size=(1000, both.shape[1]))
    low, high = np.quantile([rank_correlation(*both[:, draw]) for draw in draws], (0.025, 0.975))
    return float(low), float(high)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of numbers; equal ones share the middle of theirs."""
    below = (values[None] < values[:, None]).sum(1)
    return below + ((values[None] == values[:, None]).sum(1) - 1) / 2


def _by_turns() -> Choose:
    turns = [ACTION_NAMES.index(name) for name in ("leap_right", "run_right")]
    count = 0

    def choose(seen: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return np.full(len(seen), turns[count % 2])

    return choose


def main(arguments: Sequence[str] | None = None) -> None:
    """Play all policies on both sides and print the table and the correlation."""
    games = GameConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/rank"), help="folder of the table"
    )
    parser.add_argument("--world", default="stage", help="a shipped world's name or a folder")
    parser.add_argument("--task", default=games.task, choices=TASKS)
    parser.add_argument("--ppo", type=Path, help="folder of train_ppo.py")
    parser.add_argument("--episodes", type=int, default=8, help="per policy and side")
    parser.add_argument("--horizon", type=int, default=games.horizon)
    options = parser.parse_args(arguments)
    games = GameConfig(task=options.task, horizon=options.horizon, num_games=options.episodes)
    policies: dict[str, Choose | float] = {f"expert {share:.0%}": share for share in EXPERT_SHARES}
    policies |= blind_policies(FIRST_SEED)
    if options.ppo is not None:
        files = sorted(options.ppo.glob("*.safetensors"))
        policies |= {f"PPO {file.stem}": load_choice(file, games) for file in files}
    world = shared_world(options.world, trust=False)
    engine = shared_engine(options.world, world, "auto", num_denoise_steps=None)
    teacher, dream = make_sides(games, world, engine)
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    others = range(seeds.stop, seeds.stop + options.episodes)
    rows = []
    for name, choose in policies.items():
        played = [
            side.play(choose, games, given)
            for side, given in ((teacher, seeds), (teacher, others), (dream, seeds))
        ]
        returns = [each.mean_return for each in played]
        hits = [_hits(each, games.frame_skip) for each in (played[0], played[2])]
        rows.append((name, *returns, *hits))
        print(*table_lines((), rows[-1:], digits=2)[2:], flush=True)
    for side in (teacher, dream):
        side.close()
    text = report(rows) + (
        f"{options.episodes} episodes of {options.horizon} steps each, task {options.task}.\n"
    )
    options.output.mkdir(parents=True, exist_ok=True)
    write_whole(options.output / "rank.md", text)
    print(text)


def report(rows: Sequence[tuple[str, float, float, float, float, float]]) -> str:
    """Return the table and what it says.

    Args:
        rows: Name, return in the teacher, there again, in the dream, and hits of both.
    """
    head = ("policy", "teacher", "teacher again", "dream", "hits a 1,000 steps", "dream's")
    lines = table_lines(head, sorted(rows, key=itemgetter(1), reverse=True), digits=2)
    _, first, again, dream, *hits = zip(*rows, strict=True)
    low, high = interval(first, dream, seed=0)
    return "\n".join(lines) + (
        f"\n\nRank correlation of {len(rows)} policies: {rank_correlation(first, dream):.2f} "
        f"(95 %: {low:.2f} to {high:.2f}); of the teacher with itself on other seeds: "
        f"{rank_correlation(first, again):.2f}. The dream's hits are "
        f"{np.mean(hits[1]) / max(np.mean(hits[0]), 1e-9):.0%} of the teacher's.\n"
    )


def _hits(played: Played, frame_skip: int) -> float:
    """Return the hits in 1,000 steps."""
    return 1000 * sum(played.costs) / (sum(played.lengths) * frame_skip)


if __name__ == "__main__":
    sys.exit(run_command("rank", main, sys.argv[1:]))
