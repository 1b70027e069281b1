import numpy as np
import pytest

from midas_world.data.episodes import EpisodeMetadata
from midas_world.data.recorder import EpisodeRecorder

METADATA = EpisodeMetadata(env_id="fake:Fake-v0", seed=7, policy="random", fps=20)


def pictures(num_frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, 4, 6, 3), np.uint8)


def test_recorder_builds_what_was_played():
    frames = pictures(4)
    recorder = EpisodeRecorder(extra_keys=["hearts"])
    buffer = np.empty_like(frames[0])  # An env that reuses its observation.

    def observe(index):
        buffer[:] = frames[index]
        pose = np.full(3, index)
        return buffer, {"pose": pose, "text": f"frame {index}", "hearts": 3 - index, "score": 9}

    recorder.reset(*observe(0))
    for index in range(1, 4):
        observation, info = observe(index)
        recorder.step(index + 4, observation, 0.5 * index, index == 3, False, info)
    episode = recorder.to_episode(METADATA)
    np.testing.assert_array_equal(episode.frames, frames)
    np.testing.assert_array_equal(episode.actions, [5, 6, 7])
    np.testing.assert_array_equal(episode.rewards, np.float32([0.5, 1.0, 1.5]))
    np.testing.assert_array_equal(episode.terminated, [False, False, True])
    np.testing.assert_array_equal(
        episode.pose, np.arange(4, dtype=np.float32)[:, None].repeat(3, 1)
    )
    assert episode.text == ("frame 0", "frame 1", "frame 2", "frame 3")
    assert episode.audio is None
    assert list(episode.extras) == ["hearts"]
    with pytest.raises(ValueError, match="ended at step 3"):
        recorder.step(0, frames[0], 0.0, False, False, info)
    recorder.reset(*observe(0))
    assert recorder.num_steps == 0


def test_recorder_says_what_is_missing():
    frame = pictures(1)[0]
    recorder = EpisodeRecorder(extra_keys=["hearts"])
    with pytest.raises(ValueError, match="reset"):
        recorder.step(0, frame, 0.0, False, False, {})
    with pytest.raises(ValueError, match="nothing was recorded"):
        recorder.to_episode(METADATA)
    with pytest.raises(ValueError, match="info lacks hearts at step 0"):
        recorder.reset(frame, {"text": "a"})
    recorder.reset(frame, {"text": "a", "hearts": 3})
    with pytest.raises(ValueError, match="info lacks text at step 1"):
        recorder.step(0, frame, 0.0, False, False, {"hearts": 3})
