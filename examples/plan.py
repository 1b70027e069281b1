"""Plan in a world: try many futures from the present state at once, and play the best.

    python -m examples.plan --seeds 4                    # plan and act in the world
    python -m examples.plan --seeds 4 --act-in teacher   # plan in the world, act in the game itself

Random shooting: `fork` gives N games that go on from here, each plays actions drawn at random in
one batch, without a picture being decoded; the first actions of the best future are played, then
it plans anew. Beside it plays the prior alone: the same random actions without a look ahead.
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import midas_world  # noqa: F401 - registers the ids
from envs.world.env import WorldEnv
from examples.actions import ACTION_INDICES, TEACHER_ID, WORLD_ID
from midas_world.edge import run_command
from midas_world.evaluate.rollouts import Moment, to_episode

# Neither the world's training nor its validation saw these.
FIRST_SEED = 500_000

Plan = Callable[[], np.ndarray]


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


def play_world(world: WorldEnv, plan: Plan, *, seed: int) -> float:
    """Play an episode of the world by plans; return its return."""
    world.reset(seed=seed)
    total, is_over = 0.0, False
    while not is_over:
        for action in plan():
            _, reward, terminated, truncated, _ = world.step(int(action))
            total += float(reward)
            is_over = terminated or truncated
            if is_over:
                break
    return total


class TeacherView:
    """Lets a world see what the teacher shows, so that plans for it can be made in the world."""

    def __init__(self, world: WorldEnv, teacher: gym.Env) -> None:
        self._world = world
        self._teacher = teacher
        count = world.engine.spec.config.backbone.context_frames
        self._last: deque[Moment] = deque(maxlen=count)

    def reset(self, seed: int) -> None:
        """Begin an episode of the teacher."""
        self._last.clear()
        frame, info = self._teacher.reset(seed=seed)
        self._last.append(Moment(frame=frame, info=info))

    def step(self, action: int) -> tuple[float, bool]:
        """Play an action in the teacher; return the reward and whether the episode is over."""
        frame, reward, terminated, truncated, info = self._teacher.step(action)
        self._last.append(Moment(frame=frame, action=action, info=info))
        return float(reward), terminated or truncated

    def show_world(self, seed: int) -> None:
        """Let the world go on from what the teacher showed last."""
        start = to_episode(list(self._last), name="plan", seed=seed).start_state(len(self._last))
        self._world.reset(seed=seed, options={"start_state": start})


def play_teacher(view: TeacherView, plan: Plan, *, seed: int, needs_world: bool) -> float:
    """Play an episode of the teacher by plans made in the world; return its return."""
    view.reset(seed)
    total, is_over = 0.0, False
    while not is_over:
        if needs_world:
            view.show_world(seed)
        for action in plan():
            reward, is_over = view.step(int(action))
            total += reward
            if is_over:
                break
    return total


def make_plan(
    kind: str, world: WorldEnv, config: PlanConfig, rng: np.random.Generator, times: list[float]
) -> Plan:
    """Return the planner or the prior."""

    def plan() -> np.ndarray:
        begin = time.perf_counter()
        if kind == "planner":
            actions = shoot(world, config, rng)
        else:
            actions = draw_actions(config, 1, rng)[: config.commitment, 0]
        times.append(time.perf_counter() - begin)
        return actions

    return plan


def make_table(returns: dict[str, list[float]], times: dict[str, list[float]], where: str) -> str:
    """Return a Markdown table: mean and standard deviation over episodes, and time per plan."""
    lines = [f"| policy | return in the {where} | episodes | ms per plan |", "|---|---|---|---|"]
    for kind, values in returns.items():
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        ms = 1000.0 * float(np.median(times[kind]))
        lines.append(
            f"| {kind} | {np.mean(values):.2f} ± {spread:.2f} | {len(values)} | {ms:.0f} |"
        )
    return "\n".join(lines)


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
    """Play episodes with the planner and with the prior, and print what they brought."""
    options = parse(arguments)
    config = PlanConfig(
        num_futures=options.futures,
        depth=options.depth,
        hold=options.hold,
        commitment=options.commitment,
        horizon=options.horizon,
    )
    # Each plan for the teacher begins the world anew, so its clock runs for one plan only.
    horizon = config.horizon if options.act_in == "world" else config.depth + 1
    # Plans weigh expected rewards, the small ones too.
    made = gym.make(
        WORLD_ID, world=options.world, observation="latent", horizon=horizon, reward_threshold=0.0
    )
    world = made.unwrapped
    assert isinstance(world, WorldEnv)
    teacher = gym.make(TEACHER_ID, horizon=config.horizon)
    view = TeacherView(world, teacher)
    returns: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    for kind in ("prior", "planner"):
        returns[kind], times[kind] = [], []
        for seed in tqdm(range(FIRST_SEED, FIRST_SEED + options.seeds), desc=kind, unit="episode"):
            plan = make_plan(kind, world, config, np.random.default_rng(seed), times[kind])
            if options.act_in == "world":
                total = play_world(world, plan, seed=seed)
            else:
                total = play_teacher(view, plan, seed=seed, needs_world=kind == "planner")
            returns[kind].append(total)
    world.close()
    teacher.close()
    print(make_table(returns, times, options.act_in))


if __name__ == "__main__":
    sys.exit(run_command("plan", main, sys.argv[1:]))
