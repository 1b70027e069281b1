"""Plan in a world: try many futures from the present state at once, and play the best.

    python -m examples.plan --seeds 4                    # plan and act in the world
    python -m examples.plan --seeds 4 --act-in teacher   # plan in the world, act in the game itself

Random shooting: `fork` gives N games that go on from here, each plays actions drawn at random in
one batch, without a picture being decoded; the first actions of the best future are played, then
it plans anew. Beside it play the same random actions without a look ahead, one that always leaps
right and, in the game itself, the scripted expert. The rules are those of StageCoins.
"""

import argparse
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import midas_world  # noqa: F401 - registers the ids
from envs.stage.controller import ACTIONS
from envs.stage.policies import ExpertPolicy
from envs.world.env import WorldEnv
from examples.actions import ACTION_INDICES
from midas_world.edge import run_command
from midas_world.evaluate.rollouts import EnvFrame, Script, start_after, teacher_moments
from midas_world.tables import Cell, table_lines
from midas_world.teachers.policies import Policy

WORLD_ID, TEACHER_ID = "midas/StageCoins-v0", "midas/StageCoinsTeacher-v0"
# Neither the world's training nor its validation saw these.
FIRST_SEED = 500_000


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How far and how often to look ahead, in steps of the environment.

    Attributes:
        commitment: Steps of the best future that are played before planning anew.
        end_cost: What the end of an episode counts as, beside the rewards that it cuts off.
    """

    num_futures: int = 16
    depth: int = 32
    hold: int = 8
    commitment: int = 8
    discount: float = 0.99
    hit_cost: float = 1.0
    end_cost: float = 2.0
    horizon: int = 200

    def __post_init__(self) -> None:
        """Check that plans are whole numbers of held actions."""
        for name in ("num_futures", "depth", "hold", "commitment", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.depth % self.hold or self.commitment % self.hold:
            raise ValueError(
                f"depth and commitment must be multiples of hold ({self.hold}), "
                f"got {self.depth} and {self.commitment}"
            )
        if self.commitment > self.depth:
            raise ValueError(
                f"commitment must be at most depth ({self.depth}), got {self.commitment}"
            )


def draw_actions(config: PlanConfig, num_futures: int, rng: np.random.Generator) -> np.ndarray:
    """Return what the prior plays: actions of the environment, (depth, num_futures)."""
    held = rng.choice(ACTION_INDICES, size=(config.depth // config.hold, num_futures))
    return held.repeat(config.hold, axis=0)


def shoot(world: WorldEnv, config: PlanConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the first actions, (commitment,), of the best of many random futures.

    Args:
        world: Stays as it is; best with observation="latent", which decodes nothing.
        config: How to plan.
        rng: Draws the actions, and each future's own noise: a plan must not foresee the world's.
    """
    actions = draw_actions(config, config.num_futures, rng)
    seeds = rng.integers(2**31, size=config.num_futures).tolist()
    futures = world.fork(config.num_futures, seeds=seeds)
    worth = np.zeros(config.num_futures)
    is_over = np.zeros(config.num_futures, bool)
    for step, action in enumerate(actions):
        _, rewards, terminated, truncated, infos = futures.step(action)
        gained = rewards - config.hit_cost * infos["cost"] - config.end_cost * terminated
        worth += np.where(is_over, 0.0, config.discount**step * gained)
        is_over |= terminated | truncated
        if is_over.all():
            break
    futures.close()
    # Where nothing is gained anywhere, no future is better than another: argmax is a random one.
    return actions[: config.commitment, int(worth.argmax())]


class Prior:
    """A policy that plays what the planner draws, without a look ahead."""

    def __init__(self, config: PlanConfig) -> None:
        self._config = config

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._left: list[int] = []

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the next action of the plan, or the first of a new one."""
        if not self._left:
            self._left = self._plan().tolist()
        return self._left.pop(0)

    def _plan(self) -> np.ndarray:
        return draw_actions(self._config, 1, self._rng)[: self._config.commitment, 0]


class Planner(Prior):
    """Plays the best of what it tries in the world, which is the game that it plays."""

    def __init__(self, config: PlanConfig, world: WorldEnv) -> None:
        super().__init__(config)
        self._world = world

    def _plan(self) -> np.ndarray:
        return shoot(self._world, self._config, self._rng)


class TeacherPlanner(Planner):
    """Plays the teacher: before each plan, the world is shown what the teacher showed last."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        super().reset(rng)
        count = self._world.engine.spec.config.backbone.context_frames
        self._last: deque[EnvFrame] = deque(maxlen=count)

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """See a frame; return the next action of the plan, or the first of a new one."""
        self._last.append(EnvFrame(frame=observation, info=info))
        return super().act(observation, info)

    def _plan(self) -> np.ndarray:
        seed = int(self._rng.integers(2**31))
        self._world.reset(seed=seed, options={"start_state": start_after(list(self._last))})
        return super()._plan()


def play(env: gym.Env, name: str, policy: Policy, *, num_episodes: int) -> tuple[Cell, ...]:
    """Play episodes; return a row of the table."""
    returns, hits, num_ended = [], [], 0
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + num_episodes), desc=name, unit="episode"):
        total, num_hits = 0.0, 0.0
        for moment in teacher_moments(env, policy, seed=seed, options={}):
            total, num_hits = total + moment.reward, num_hits + moment.info["cost"]
            num_ended += moment.terminated
        returns.append(total)
        hits.append(num_hits)
    spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    brought = f"{np.mean(returns):.2f} ± {spread:.2f}"
    return name, brought, float(np.mean(hits)), f"{1 - num_ended / num_episodes:.0%}", num_episodes


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    config = PlanConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", default="stage", help="a shipped world's name or a folder")
    parser.add_argument("--act-in", choices=("world", "teacher"), default="world")
    parser.add_argument("--seeds", type=int, default=4, help="episodes of each policy")
    parser.add_argument("--futures", type=int, default=config.num_futures)
    parser.add_argument("--depth", type=int, default=config.depth)
    parser.add_argument("--hold", type=int, default=config.hold)
    parser.add_argument("--commitment", type=int, default=config.commitment)
    parser.add_argument("--horizon", type=int, default=config.horizon)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play episodes with the planner and others, and print what they brought."""
    options = parse(arguments)
    config = PlanConfig(
        num_futures=options.futures,
        depth=options.depth,
        hold=options.hold,
        commitment=options.commitment,
        horizon=options.horizon,
    )
    is_world = options.act_in == "world"
    # Each plan for the teacher begins the world anew, so its clock runs for one plan only.
    horizon = config.horizon if is_world else config.depth + 1
    made = gym.make(
        WORLD_ID, world=options.world, observation="latent", horizon=horizon, outcomes="expected"
    )
    world = made.unwrapped
    assert isinstance(world, WorldEnv)
    policies = {
        "random": Prior(config),
        "always leaps right": Script([ACTIONS.index("leap_right")]),
    }
    if is_world:
        env, planner = made, Planner(config, world)
    else:
        env, planner = gym.make(TEACHER_ID, horizon=config.horizon), TeacherPlanner(config, world)
        policies["scripted expert"] = ExpertPolicy()
    rows = [
        play(env, name, policy, num_episodes=options.seeds)
        for name, policy in (policies | {"planner": planner}).items()
    ]
    made.close()
    env.close()
    columns = ["policy", f"return in the {options.act_in}", "hits", "survived", "episodes"]
    print("\n".join(table_lines(columns, rows, digits=1)))


if __name__ == "__main__":
    sys.exit(run_command("plan", main, sys.argv[1:]))
