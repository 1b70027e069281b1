"""Measuring worlds: times and their parts, frames against float32's, and what the command shows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import TorchEngine
from engine.bench import command
from engine.bench.quality import conditions_of, measure_quality
from engine.bench.timing import time_parts
from engine.on_onnx.engine import OnnxEngine
from midas_world.commands import cli
from midas_world.config import load_preset
from midas_world.types import BackendUnavailableError
from midas_world.world import World
from tests.fakes import FakeEngine, make_start_state

PARTS = ["backbone", "head", "decoder"]


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the rows of tables, by their first cells."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in cells}


def test_the_command_shows_speed_parts_and_quality(tiny_folder, monkeypatch, capsys):
    def make_engine(world: World, backend: str, **given):
        assert given == {"device": "cpu", "num_denoise_steps": 2}
        if backend == "onnx":
            raise BackendUnavailableError("install it")
        return TorchEngine(world, dtype=torch.bfloat16, **given)

    monkeypatch.setattr(command, "make_engine", make_engine)
    words = ["bench", "--world", str(tiny_folder), "--batches", "2", "1", "--steps", "2"]
    words += ["--quality", "2", "--device", "cpu", "--num-denoise-steps", "2"]
    assert cli.main([*words, "--backend", "onnx", "torch"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("# Speed of tiny\n")
    assert "## onnx\n\n**Not measured**: install it\n" in shown
    assert "## torch bfloat16 on cpu, 2 denoise steps\n" in shown
    rows = rows_of(shown)
    for games in (1, 2):
        median, p99, rate = map(float, rows[str(games)])
        assert p99 >= median > 0
        assert rate == pytest.approx(1e3 * games / median, rel=0.05)
    assert rows["part of a step, games: 1"] == ["median ms", "p99 ms"]
    assert all(float(rows[part][0]) > 0 for part in PARTS)
    # The reference takes as many denoise steps as the engine, not as the world.
    assert rows["frames against torch float32 on cpu, 2 denoise steps, 8 games at most"]
    for name in ("decoder", "rollout, steps 1 to 2", "rollout, step 2"):
        assert 25 < float(rows[name][0]) < 90


def test_parts_are_those_of_a_step_and_leave_the_engine_as_it_was(tiny_world, kept_graphs):
    onnx = OnnxEngine(tiny_world, folder=kept_graphs)
    for engine in (TorchEngine(tiny_world, device="cpu"), onnx):
        own = dict(vars(engine)), [dict(vars(s)) for s in getattr(engine, "_sessions", {}).values()]
        times = time_parts(engine, tiny_world.start_states[0], batch_size=2, num_steps=3)
        assert list(times) == PARTS
        assert all(len(part) == 3 and min(part) > 0 for part in times.values())
        after = [dict(vars(s)) for s in getattr(engine, "_sessions", {}).values()]
        assert own == (vars(engine), after)


def test_more_games_than_memory_holds_end_the_series(tiny_folder, monkeypatch, capsys):
    class Full(FakeEngine):
        def new_cache(self, batch_size: int):
            if batch_size > 1:
                raise torch.OutOfMemoryError("no room")
            return super().new_cache(batch_size)

    monkeypatch.setattr(command, "make_engine", lambda world, *_, **__: Full(world.config.world))
    assert cli.main(["bench", "--world", str(tiny_folder), "--steps", "1"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == ["games at once", "---", "1", "2"]
    assert rows["2"] == ["out of GPU memory", "-", "-"]


# Frames against float32's


def test_closeness_is_the_mean_of_frames(tiny_world: World):
    class WrongAtTimes(FakeEngine):
        """Grey, but for so many levels in its frames, one after another."""

        levels = iter([1, 1, 8, 2, 4, 2, 4, 2, 2])

        def decode(self, latents: Tensor) -> np.ndarray:
            level = next(self.levels) if self is tested else 0
            return np.full((len(latents), *self.spec.frame_shape), 100 + level, np.uint8)

    config = tiny_world.config.world
    tested, reference = WrongAtTimes(config), WrongAtTimes(config)
    found = measure_quality(tested, reference, tiny_world.start_states, num_steps=2)

    def mean(*levels: float) -> object:
        values = [20 * math.log10(255 / level) for level in levels]
        return pytest.approx(sum(values) / len(values), abs=1e-4)

    # Per game: the frame that it begins with, then those of its steps.
    assert found == {
        "decoder": mean(1, 2, 4),
        "rollout, steps 1 to 2": mean(1, 8, 4, 2, 2, 2),
        "rollout, step 2": mean(8, 2, 2),
    }


def test_each_engine_feeds_on_its_own_latents_with_the_same_noise(tiny_world: World):
    class Watched(FakeEngine):
        def __init__(self, config, *, shift: float) -> None:
            super().__init__(config)
            self.shift = shift
            self.given: list[tuple[Tensor, Tensor, Tensor]] = []
            self.made: list[Tensor] = []

        def step(self, cache, latents, conditions, noise):
            self.given.append((latents.clone(), conditions.pose.clone(), noise.clone()))
            made = super().step(cache, latents, conditions, noise)
            self.made.append(made.latents + self.shift)
            return made._replace(latents=self.made[-1])

        def decode(self, latents: Tensor) -> np.ndarray:
            whole.add((self.shift, torch.backends.cudnn.allow_tf32))
            return super().decode(latents)

    whole: set[tuple[float, bool]] = set()
    config = tiny_world.config.world
    config = replace(config, head=replace(config.head, temperature=1.0))
    tested, reference = Watched(config, shift=0.5), Watched(config, shift=0.0)
    measure_quality(tested, reference, tiny_world.start_states[:1], num_steps=3)
    for engine in (tested, reference):
        assert torch.equal(engine.given[0][0], tiny_world.start_states[0].latents[-1:].float())
        for made, (latents, *_) in zip(engine.made, engine.given[1:], strict=False):
            assert torch.equal(latents, made)
    assert not torch.equal(tested.given[1][0], reference.given[1][0])
    for (_, pose, noise), (_, other_pose, other_noise) in zip(
        tested.given, reference.given, strict=True
    ):
        assert torch.equal(pose, other_pose)
        assert torch.equal(noise, other_noise)
    assert not torch.equal(tested.given[0][2], tested.given[1][2])
    assert whole == {(0.5, True), (0.0, False)}  # the reference alone keeps float32 whole


def test_conditions_go_back_and_forth_over_a_start_state():
    start = make_start_state(load_preset("tiny").world, 0)
    first, second, third = start.conditions
    assert conditions_of(start, 6) == [second, first, second, third, second, first]
    alone = replace(start, latents=start.latents[-1:], conditions=(third,))
    assert conditions_of(alone, 2) == [third, third]


@pytest.mark.gpu
def test_a_gpu_times_parts(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cuda")
    times = time_parts(engine, tiny_world.start_states[0], batch_size=1, num_steps=2)
    assert all(min(times[part]) > 0 for part in PARTS)
