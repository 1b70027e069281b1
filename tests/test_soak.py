"""Memory stays where it is, however long the game."""

import gc

import numpy as np
import pytest

from envs.picture import pack_frame, unpack_frame
from midas_world.commands import cli
from midas_world.commands import soak as module
from midas_world.commands.soak import MOST_BYTES_PER_STEP, growth, soak
from midas_world.machine import memory_mib
from tests.fakes import SavingEnv
from tests.windows import playable

pytestmark = pytest.mark.skipif(
    not np.isfinite(memory_mib()), reason="nothing here says how much memory is held"
)


def test_the_frames_of_5000_steps_leave_nothing_behind():
    """pygame-ce's image.save kept the 15 KB of each: 75 MB."""
    rng = np.random.default_rng(0)
    frame = np.kron(rng.integers(0, 256, (12, 20, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    for _ in range(100):
        unpack_frame(pack_frame(frame))
    before = memory_mib()
    for number in range(5000):
        packed = pack_frame(frame)
        if number % 10 == 0:
            unpack_frame(packed)
    assert memory_mib() - before < 4


class NoisyEnv(SavingEnv):
    """One whose frames take 15 KB as JPEG."""

    pictures = np.random.default_rng(0).integers(0, 256, (7, 96, 160, 3), np.uint8)

    def _frame(self, action: int) -> np.ndarray:
        return self.pictures[self._step % len(self.pictures)]


def test_a_long_game_in_the_window_grows_by_nothing(here):
    gc.collect()
    gc.freeze()  # what other tests hold would be looked through thirty times
    report = soak(lambda: playable(NoisyEnv(over_after=700)), num_frames=1000)
    assert report.num_frames == 1000
    assert report.num_recordings == 2
    # So short a game sees two recordings begin; a frame that is kept would be 15 KB.
    assert report.bytes_per_step < 4 * MOST_BYTES_PER_STEP
    assert not list((here / "recordings").iterdir())


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_growth_is_what_each_step_keeps_and_not_what_comes_once_or_comes_and_goes(kept):
    noise = np.random.default_rng(0).uniform(size=30)
    once, goes = 7.0 * (np.arange(30) >= 12), np.arange(30) % 2
    samples = 400.0 + kept * np.arange(30) + once + goes + noise
    assert growth(samples.tolist()) == pytest.approx(kept, abs=0.1)


def test_one_sample_tells_no_growth():
    assert np.isnan(growth([400.0]))


@pytest.mark.parametrize(("grown", "status"), [(0.0, 0), (2000.0, 1)])
def test_bench_soaks_and_says_whether_memory_grew(monkeypatch, capsys, grown, status):
    asked = []

    def fake(opener, *, num_frames):
        asked.append((opener.args, opener.keywords["backend"], num_frames))
        rest = {"num_recordings": 2, "seconds": 1.0, "memory_mib": 300.0}
        return module.SoakReport(num_frames=num_frames, bytes_per_step=grown, **rest)

    monkeypatch.setattr(module, "soak", fake)
    assert cli.main(["bench", "--soak", "50", "--world", "w", "--backend", "torch"]) == status
    assert asked == [(("w",), "torch", 50)]
    assert f"growing by {grown:.0f} bytes a step" in capsys.readouterr().out
