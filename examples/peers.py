"""A step of ours beside one of Δ-IRIS and of DIAMOND, in turns on the same core, without a GPU.

    git clone https://github.com/vmicheli/delta-iris && git clone https://github.com/eloialonso/diamond
    pip install einops
    OMP_NUM_THREADS=1 python -m examples.peers --delta-iris delta-iris --diamond diamond

Each is its own environment's `step` for one game, in a process of its own: theirs at 64x64 with
random weights and the sizes of their Atari configs, as their code runs it, in float32; ours as it
plays. The processor's time counts, so that other programs do not. What a step of theirs does not
use (Atari, wandb) need not be installed. Ends are not timed: random weights end at random.
"""

import argparse
import ast
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from midas_world.edge import run_command
from midas_world.tables import table_lines

NUM_ACTIONS = 15
TURNS = 8
# What their modules import and a step does not use.
_UNUSED = (
    "ale_py",
    "cv2",
    "gym",
    "gym.envs",
    "torcheval",
    "torcheval.metrics",
    "torcheval.metrics.functional",
    "torchvision",
    "torchvision.transforms",
    "wandb",
)

Step = Callable[[int], object]


class _Unused(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _value(node: ast.expr) -> float:
    """Return a number, a sum, a product or float("inf"); nothing else is worked out."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as words)]):
            return float(words)
    raise ValueError(f"cannot work out {ast.unparse(node)!r}")


def _load(file: Path) -> Any:
    from omegaconf import OmegaConf

    def evaluate(words: str) -> Any:  # the sums of their configs; float("inf")
        return _value(ast.parse(words, mode="eval").body)

    OmegaConf.register_resolver("eval", evaluate, replace=True)
    return OmegaConf.load(file)


def _made(node: Any, **own: Any) -> Any:
    """Return what a config names, as Hydra makes it."""
    module, _, name = node["_target_"].rpartition(".")
    values = {key: node[key] for key in node if key != "_target_"} | own
    for key, value in values.items():
        if hasattr(value, "keys") and "_target_" in value:
            values[key] = _made(value)
    return getattr(importlib.import_module(module), name)(**values)


def make_delta_iris(checkout: Path) -> Step:
    """Return a step of Δ-IRIS."""
    import torch
    from omegaconf import OmegaConf

    models, envs = map(importlib.import_module, ("models", "envs.world_model_env"))
    sizes = OmegaConf.create({"params": _load(checkout / "config/params/atari.yaml")}).params
    env = envs.WorldModelEnv(
        models.Tokenizer(_made(sizes.tokenizer, num_actions=NUM_ACTIONS)),
        models.WorldModel(_made(sizes.world_model, num_actions=NUM_ACTIONS)),
        "cpu",
    )
    env.reset_from_past(torch.rand(1, 1, 3, 64, 64), torch.empty(1, 0, dtype=torch.long))
    return env.step


def make_diamond(checkout: Path) -> Step:
    """Return a step of DIAMOND."""
    import torch

    envs, diffusion, models = map(
        importlib.import_module, ("envs", "models.diffusion", "models.rew_end_model")
    )
    agent = _load(checkout / "config/agent/default.yaml")
    agent.denoiser.inner_model.num_actions = NUM_ACTIONS
    agent.rew_end_model.update(img_channels=3, img_size=64, num_actions=NUM_ACTIONS)
    count = agent.denoiser.inner_model.num_steps_conditioning
    first = SimpleNamespace(obs=torch.rand(1, count, 3, 64, 64), act=torch.zeros(1, count).long())

    class Loader(list[Any]):
        batch_sampler = SimpleNamespace(batch_size=1)

    env = envs.WorldModelEnv(
        diffusion.Denoiser(_made(agent.denoiser)).eval(),
        models.RewEndModel(_made(agent.rew_end_model)).eval(),
        Loader([first]),
        _made(
            _load(checkout / "config/trainer.yaml").world_model_env,
            horizon=10**9,
            num_batches_to_preload=1,
        ),
    )
    env.reset()
    env.reset_dead = lambda _: None
    return lambda action: env.step(torch.tensor([action]))


def make_ours(world: Path) -> Step:
    """Return a step of ours."""
    from midas_world.environments import WorldEnv

    env = WorldEnv(str(world), end=lambda _: np.zeros(1, bool), horizon=10**9)
    env.reset(seed=0)
    return env.step


MAKERS = {"Δ-IRIS": make_delta_iris, "DIAMOND": make_diamond, "midas-world": make_ours}


def serve(name: str, place: Path) -> None:
    """Time steps whenever a line with their number comes in; print the seconds of each."""
    if name != "midas-world":
        sys.path.insert(0, str(place / "src"))
        for unused in _UNUSED:
            sys.modules[unused] = _Unused(unused)
    step = MAKERS[name](place)
    rng = np.random.default_rng(0)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = []
        for action in rng.integers(NUM_ACTIONS, size=int(line)):
            begin = time.process_time()
            step(int(action))
            seconds.append(time.process_time() - begin)
        print(*seconds, flush=True)


def measure(places: dict[str, Path], *, num_steps: int) -> dict[str, list[float]]:
    """Return the seconds of steps of each, taken in turns; the first turn warms up."""
    players = {
        name: subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "examples.peers", "--serve", name, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, place in places.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in places}
    try:
        for name, player in players.items():
            assert player.stdout is not None
            while (line := player.stdout.readline()).strip() != "ready":
                if not line:
                    raise RuntimeError(f"{name} did not start: see above")
        for turn in range(TURNS + 1):
            for name, player in players.items():
                assert player.stdin is not None
                assert player.stdout is not None
                print(num_steps, file=player.stdin, flush=True)
                taken = [float(word) for word in player.stdout.readline().split()]
                seconds[name] += taken if turn else []
    finally:
        for player in players.values():
            player.communicate()
    return seconds


def commit_of(place: Path) -> str:
    """Return the commit of a checkout."""
    command = ["git", "-C", str(place), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delta-iris", type=Path, help="a checkout of it")
    parser.add_argument("--diamond", type=Path, help="a checkout of it")
    parser.add_argument("--world", type=Path, help="a world's folder; the shipped one by default")
    parser.add_argument("--steps", type=int, default=20, help=f"of each of {TURNS} turns")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    from midas_world.world import find_world, load_world

    folder = options.world or find_world("stage")
    size = load_world(folder).config.world
    given = {"Δ-IRIS": options.delta_iris, "DIAMOND": options.diamond}
    places = {name: place for name, place in given.items() if place} | {"midas-world": folder}
    median = {
        name: float(np.median(seconds)) * 1000
        for name, seconds in measure(places, num_steps=options.steps).items()
    }
    pixels = dict.fromkeys(places, (64, 64)) | {"midas-world": (size.height, size.width)}
    ours = median["midas-world"] / np.prod(pixels["midas-world"])
    rows = [
        (
            name if name == "midas-world" else f"{name} {commit_of(place)}",
            "{}x{}".format(*pixels[name]),
            median[name],
            median[name] / median["midas-world"],
            median[name] / float(np.prod(pixels[name])) / float(ours),
        )
        for name, place in places.items()
    ]
    head = ("environment", "frame", "ms of CPU a step, median", "over ours", "over ours, per pixel")
    print("\n".join(table_lines(head, rows, digits=2)))


if __name__ == "__main__":
    sys.exit(run_command("peers", main, sys.argv[1:]))
