"""The benchmark's look at frames: what is compared, what comes out, and how it is told."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import TorchEngine
from engine.bench import run
from engine.bench.quality import (
    MAX_GAMES,
    Closeness,
    conditions_of,
    measure_quality,
    quality_result,
    spread_games,
)
from engine.bench.report import to_markdown
from engine.bench.run import BenchConfig, bench
from engine.bench.subject import Subject
from midas_world.commands import cli
from midas_world.config import load_preset
from midas_world.world import World
from tests.fakes import FakeEngine, make_start_state


def subject_of(world: World) -> Subject:
    return Subject(name="tiny", config=world.config.world, weights="", make=lambda _: world)


class GreyEngine(FakeEngine):
    """Shows grey whatever the latents are, so that errors are what a test says."""

    def decode(self, latents: Tensor) -> np.ndarray:
        return np.full((len(latents), *self.spec.frame_shape), 100, np.uint8)


def known_psnr(levels: float) -> float:
    return 20 * math.log10(255 / levels)


def test_float32_torch_is_equal_to_itself(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    result = quality_result(engine, tiny_world, num_steps=2)
    assert result["reason"] == ""
    assert result["decoder"] == {"psnr_db": None, "num_frames": 3, "num_equal": 3}
    assert result["rollout"] == {"psnr_db": None, "num_frames": 6, "num_equal": 6}
    assert result["last_step"] == {"psnr_db": None, "num_frames": 3, "num_equal": 3}
    assert result["reference"] == "torch float32 on cpu, 1 denoise steps"


def test_bfloat16_is_close_and_not_equal(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.bfloat16, num_denoise_steps=2)
    result = quality_result(engine, tiny_world, num_steps=1)
    assert 25 < result["decoder"]["psnr_db"] < 90
    assert 25 < result["rollout"]["psnr_db"] < 90
    # The reference takes as many denoise steps as the engine, not as the world.
    assert result["reference"].startswith("torch float32 on cpu, 2 denoise steps")


def test_equal_frames_are_counted_and_left_out_of_the_mean(tiny_world: World):
    class WrongAtTimes(GreyEngine):
        """Errs by so many levels in its frames, one after another."""

        levels = iter([1, 0, 8, 2, 4, 0, 4, 0, 2])

        def decode(self, latents: Tensor) -> np.ndarray:
            return super().decode(latents) + np.uint8(next(self.levels))

    config = tiny_world.config.world
    quality = measure_quality(
        WrongAtTimes(config), GreyEngine(config), tiny_world.start_states, num_steps=2
    )
    # Per game: one frame of the decoder alone, then those of its steps.
    assert quality.decoder == Closeness(
        psnr_db=pytest.approx((known_psnr(1) + known_psnr(2) + known_psnr(4)) / 3, abs=1e-4),
        num_frames=3,
        num_equal=0,
    )
    assert quality.rollout == Closeness(
        psnr_db=pytest.approx((known_psnr(8) + known_psnr(4) + known_psnr(2)) / 3, abs=1e-4),
        num_frames=6,
        num_equal=3,
    )
    assert quality.last_step == Closeness(
        psnr_db=pytest.approx((known_psnr(8) + known_psnr(2)) / 2, abs=1e-4),
        num_frames=3,
        num_equal=1,
    )


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


def test_only_the_reference_keeps_convolutions_whole(tiny_world: World):
    class Watched(FakeEngine):
        def decode(self, latents: Tensor) -> np.ndarray:
            seen.add((self, torch.backends.cudnn.allow_tf32))
            return super().decode(latents)

    config, seen = tiny_world.config.world, set()
    tested, reference = Watched(config), Watched(config)
    before = torch.backends.cudnn.allow_tf32
    assert before  # torch's default; else there is nothing to see
    measure_quality(tested, reference, tiny_world.start_states, num_steps=1)
    assert seen == {(tested, True), (reference, False)}
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("count", "games"),
    [(1, [0]), (3, [0, 1, 2]), (10, [0, 1, 2, 3, 5, 6, 7, 8]), (48, list(range(0, 48, 6)))],
)
def test_games_are_spread_over_the_start_states(count: int, games: list[int]):
    assert spread_games(count) == games
    assert len(games) <= MAX_GAMES


def test_conditions_go_back_and_forth_over_a_start_state():
    start = make_start_state(load_preset("tiny").world, 0)
    first, second, third = start.conditions
    assert conditions_of(start, 6) == [second, first, second, third, second, first]
    alone = replace(start, latents=start.latents[-1:], conditions=(third,))
    assert conditions_of(alone, 2) == [third, third]


@pytest.mark.parametrize(
    ("num_states", "num_steps", "message"),
    [(1, 0, "num_steps must be at least 1, got 0"), (0, 1, "needs a start state")],
)
def test_nothing_to_compare_is_an_error(num_states: int, num_steps: int, message: str):
    config = load_preset("tiny").world
    starts = [make_start_state(config, seed) for seed in range(num_states)]
    with pytest.raises(ValueError, match=message):
        measure_quality(FakeEngine(config), FakeEngine(config), starts, num_steps=num_steps)


def test_bad_numbers_of_steps_are_told(tiny_folder: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="quality must be at least 1 step, or 0 for none, got -1"):
        BenchConfig(quality_steps=-1)
    assert cli.main(["bench", "--world", str(tiny_folder), "--quality", "-3"]) == 2
    assert "at least 1 step, or 0 for none, got -3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["bench", "--world", str(tiny_folder), "--quality", "many"])


def test_the_command_tells_quality_beside_speed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(
        run, "make_engine", lambda world, *_, **__: TorchEngine(world, dtype=torch.bfloat16)
    )
    words = ["bench", "--world", str(tiny_folder), "--batches", "1", "--steps", "1"]
    assert cli.main([*words, "--device", "cpu", "--quality", "2", "--output", str(tmp_path)]) == 0
    [result] = json.loads((tmp_path / "bench.json").read_text())["results"]
    quality = result["quality"]
    assert (quality["num_steps"], quality["num_games"]) == (2, 3)
    markdown = capsys.readouterr().out
    assert "**Frames against those of float32 torch**" in markdown
    for row, key, num_frames in (
        ("decoder: frames of equal latents", "decoder", 3),
        ("rollout: mean of steps 1 to 2", "rollout", 6),
        ("rollout: step 2", "last_step", 3),
    ):
        assert f"| {row} | {quality[key]['psnr_db']:.1f} | {num_frames} |" in markdown
    assert "torch float32 on cpu, 1 denoise steps, from 3 start states" in markdown
    assert "| decoder |" in markdown  # and speed is told still


def test_no_quality_is_measured_unless_asked_for(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "make_engine", lambda world, *_, **__: FakeEngine(world.config.world))
    monkeypatch.delattr(run, "quality_result")
    config = BenchConfig(batch_sizes=(1,), num_steps=1, device="cpu")
    report = bench(subject_of(tiny_world), config, tmp_path)
    assert report["results"][0]["quality"] is None
    assert "Frames against" not in to_markdown(report)


def test_equal_frames_are_told_in_words(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        run,
        "make_engine",
        lambda world, *_, **__: TorchEngine(world, device="cpu", dtype=torch.float32),
    )
    config = BenchConfig(batch_sizes=(1,), num_steps=1, device="cpu", quality_steps=1)
    bench(subject_of(tiny_world), config, tmp_path)
    markdown = (tmp_path / "bench.md").read_text()
    assert "| decoder: frames of equal latents | equal | 3 | 3 |" in markdown
    assert "| rollout: step 1 | equal | 3 | 3 |" in markdown


def test_a_reference_that_memory_does_not_hold_is_told(tiny_world: World):
    class Full(FakeEngine):
        def decode(self, latents: Tensor) -> np.ndarray:
            raise torch.OutOfMemoryError("no room")

    result = quality_result(Full(tiny_world.config.world), tiny_world, num_steps=1)
    assert result == {"reason": "the GPU's memory does not hold float32 torch beside the engine"}
