"""Sound: files of any kind, the bank's sentences as sound, effects, and what a game sounds like."""

import av
import numpy as np
import pytest

from envs.soundtrack import Soundtrack
from envs.stage.conditioner import StageConditioner
from envs.stage.controller import ACTIONS
from envs.stage.effects import EffectTrack, effect
from envs.stage.env import StageEnv
from envs.stage.speech import features_from_audio, load_speech_bank, load_speech_sound
from midas_world.data.sound import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_STEP,
    Resampler,
    SoundError,
    read_sound,
    to_int16,
)
from midas_world.sessions.sound import SoundReader, SoundWriter

IDLE, WALK, JUMP, TALK = (ACTIONS.index(n) for n in ("idle", "walk_right", "jump", "talk"))


def tone(hz: float, seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def write_sound(path, samples: np.ndarray, rate_hz: int, *, codec: str = "pcm_s16le"):
    """Write float samples, (A,) or (2, A) for stereo."""
    samples = np.atleast_2d(samples)
    layout = "stereo" if len(samples) == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        packed = np.ascontiguousarray(to_int16(samples).T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(spectrum.argmax() * SAMPLE_RATE_HZ / samples.size)


def test_the_banks_sound_gives_the_banks_features():
    bank, sound = load_speech_bank(), load_speech_sound()
    assert [len(samples) for samples in sound] == [
        SAMPLES_PER_STEP * len(sentence) for sentence in bank.sentences
    ]
    errors = [
        np.abs(features_from_audio(samples / 32768, SAMPLE_RATE_HZ) - features).ravel()
        for samples, features in zip(sound, bank.sentences, strict=True)
    ]
    # What Opus at 32 kbit/s takes away; a shift by one step would be 0.1 in the mean.
    assert max(error.mean() for error in errors) < 0.02
    assert np.concatenate(errors).max() < 0.2


def test_voices_choose_from_the_sentences_that_worlds_learned_from():
    bank = load_speech_bank()
    taught = set(bank.languages[: bank.num_taught])
    assert len(taught) == 8
    assert len(set(bank.languages) - taught) >= 4
    conditioner = StageConditioner()
    heard = set()
    for step in range(400):
        conditioner.step(TALK if step % 2 else IDLE)
        heard.add(int(conditioner.spoken[0, 0]))
    assert len(heard) > 30
    assert max(heard) < bank.num_taught


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("low.wav", "pcm_s16le", 8_000),
        ("high.wav", "pcm_s16le", 192_000),
        ("voice.flac", "flac", 44_100),
        ("voice.ogg", "libopus", 48_000),
        ("voice.mp3", "libmp3lame", 44_100),
    ],
)
def test_files_of_any_rate_and_kind_are_read_in_place(tmp_path, name, codec, rate):
    silent, loud = np.zeros(rate // 2), tone(440.0, 0.5, rate)
    stereo = np.stack([np.concatenate((silent, loud))] * 2)
    samples = np.concatenate(
        list(read_sound(write_sound(tmp_path / name, stereo, rate, codec=codec)))
    )
    assert samples.size == pytest.approx(SAMPLE_RATE_HZ, abs=1300)  # MP3 comes in whole frames
    assert loudest_hz(samples[9000:15000]) == pytest.approx(440.0, abs=5.0)
    onset = int(np.argmax(np.abs(samples) > 3000))
    assert onset / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=0.005)


def test_files_without_sound_are_refused_in_words(tmp_path):
    with pytest.raises(SoundError, match="there is no audio file"):
        next(read_sound(tmp_path / "nowhere.wav"))
    (tmp_path / "words.wav").write_text("these are words, and no sound at all")
    with pytest.raises(SoundError, match="cannot be read as sound"):
        next(read_sound(tmp_path / "words.wav"))
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=20)
        stream.width, stream.height = 32, 32
        film.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        film.mux(stream.encode(None))
    with pytest.raises(SoundError, match="holds no sound"):
        next(read_sound(tmp_path / "film.mp4"))


def test_live_audio_of_another_rate_becomes_ours():
    resampler = Resampler(48_000)
    pieces = np.split(to_int16(tone(1000.0, 1.0, 48_000)), 100)
    samples = np.concatenate([resampler.add(piece) for piece in pieces])
    assert samples.size == pytest.approx(SAMPLE_RATE_HZ, abs=50)
    assert loudest_hz(samples) == pytest.approx(1000.0, abs=5.0)


def effects_of(env: StageEnv, actions: list[int]) -> list[np.ndarray]:
    track = EffectTrack()
    sounds = []
    for action in actions:
        _, reward, terminated, _, info = env.step(action)
        sounds.append(track.step(info, float(reward), is_over=terminated))
    return sounds


def onsets(sounds: list[np.ndarray]) -> list[int]:
    """Return steps that are loud after a quiet one."""
    loud = [False, *(bool(np.abs(sound).max() > 0.05) for sound in sounds)]
    return [step for step in range(len(sounds)) if loud[step + 1] and not loud[step]]


def test_feet_are_heard_at_every_step_of_a_walk_and_not_in_standing():
    env = StageEnv()
    env.reset(seed=0, options={"things": False})
    assert not onsets(effects_of(env, [IDLE] * 20))
    steps = onsets(effects_of(env, [WALK] * 40))
    assert set(np.diff(steps[1:])) == {8}  # half a stride, at 3 px a step, takes 8 of them
    assert len(steps) == 6


def test_a_landing_is_heard_where_the_feet_meet_the_ground():
    env = StageEnv()
    env.reset(seed=0)
    heights = []
    track, sounds = EffectTrack(), []
    for action in [JUMP] + [IDLE] * 20:
        info = env.step(action)[4]
        heights.append(float(info["pose"][32]))
        sounds.append(track.step(info, 0.0, is_over=False))
    (landing,) = onsets(sounds)
    assert heights[landing] == 0.0 < heights[landing - 1]


@pytest.mark.parametrize(
    ("outcome", "name"),
    [((1.0, 0.0, False), "coin"), ((0.0, 1.0, False), "hit"), ((0.0, 1.0, True), "game over")],
)
def test_what_happens_is_heard(outcome, name):
    reward, cost, is_over = outcome
    info = {"pose": np.zeros(39, np.float32), "cost": cost}
    track = EffectTrack()
    sounds = [track.step(info, reward, is_over=is_over)]
    sounds += [track.step(info | {"cost": 0.0}, 0.0, is_over=False) for _ in range(25)]
    heard = np.concatenate(sounds)
    expected = effect(name)
    np.testing.assert_allclose(heard[: expected.size], expected, atol=1e-12)
    assert not heard[expected.size :].any()


def test_a_game_sounds_like_what_its_infos_say():
    env, soundtrack = StageEnv(), Soundtrack()
    env.reset(seed=3)
    soundtrack.begin()
    for _ in range(30):
        _, reward, _, _, info = env.step(TALK)
        sound = soundtrack.step(info, float(reward), is_over=False)
        assert sound is not None
        told = info["audio"][:20]
        np.testing.assert_allclose(
            features_from_audio(sound[0] / 32768, SAMPLE_RATE_HZ)[0], told, atol=0.2
        )
    assert soundtrack.step({"text": "of another game"}, 0.0, is_over=False) is None


def test_live_sound_takes_the_place_of_a_voice():
    env, soundtrack = StageEnv(), Soundtrack()
    env.reset(seed=3)
    live = to_int16(tone(300.0, 0.05))
    features = features_from_audio(live / 32768, SAMPLE_RATE_HZ)[0]
    env.set_voices(features, None)
    info = env.step(TALK)[4]
    np.testing.assert_array_equal(info["audio"][:20], features)
    sound = soundtrack.step(info, 0.0, is_over=False, live=(live, None))
    np.testing.assert_array_equal(sound[0], live)
    # For one step only.
    info = env.step(TALK)[4]
    assert info["spoken"][0, 0] >= 0


# The sound of a session


def random_sound(num_steps: int) -> np.ndarray:
    sound = np.random.default_rng(0).normal(0, 2000, (num_steps, 3, SAMPLES_PER_STEP))
    sound[1::2, 1:] = 0.0
    return sound.astype(np.int16)


def test_a_sessions_sound_is_read_back_bit_by_bit(tmp_path):
    sound, writer = random_sound(30), SoundWriter()
    path = tmp_path / "sound.flac"
    path.write_bytes(b"".join(writer.add(step, number) for number, step in enumerate(sound)))
    reader = SoundReader(path)
    np.testing.assert_array_equal([reader.step(number) for number in range(30)], sound)
    assert not reader.step(30).any()


@pytest.mark.parametrize("num_lost", [1, 700, 1200])
def test_sound_that_was_cut_off_plays_up_to_there(tmp_path, num_lost):
    sound, writer = random_sound(10), SoundWriter()
    path = tmp_path / "sound.flac"
    data = b"".join(writer.add(step, number) for number, step in enumerate(sound))
    path.write_bytes(data[:-num_lost])
    reader = SoundReader(path)
    np.testing.assert_array_equal([reader.step(number) for number in range(9)], sound[:9])
    assert not reader.step(9).any()
