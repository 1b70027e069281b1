import itertools

import numpy as np
import pytest

from envs.stage.conditioner import AUDIO_SIZE, POSE_SIZE, StageConditioner
from envs.stage.controller import ACTIONS
from envs.stage.looks import OUTFITS
from envs.stage.scene import NUM_TEXT_VARIANTS, Scene, describe
from envs.stage.scenery import PLACES, TIMES, WEATHERS
from envs.stage.speech import (
    NUM_MELS,
    SpeechTrack,
    features_from_audio,
    load_speech_bank,
    loudness,
)
from envs.stage.words import scene_from_text
from midas_world.teachers.words import PROMPT_BYTES

TALK, IDLE, RUN = (ACTIONS.index(name) for name in ("talk", "idle", "run_right"))


def make_conditioner(seed: int = 0) -> StageConditioner:
    conditioner = StageConditioner()
    conditioner.reset(scene=Scene(), rng=np.random.default_rng(seed), x=100.0, facing=-1)
    return conditioner


def assert_equal_conditions(first, second):
    np.testing.assert_array_equal(first.pose, second.pose)
    np.testing.assert_array_equal(first.audio, second.audio)
    assert first.text == second.text


@pytest.mark.parametrize("prompt", [None, "schönes Wetter"])
def test_state_round_trip_makes_an_equal_future(prompt):
    rng = np.random.default_rng(1)
    actions = rng.integers(len(ACTIONS), size=80).repeat(5)
    first = make_conditioner()
    first.set_prompt(prompt)
    for action in actions[:200]:
        first.step(action)
    state = first.state()
    assert all(array.dtype.kind in "iuf" for array in state.values())
    second = make_conditioner(seed=9)
    second.load_state(state)
    assert_equal_conditions(first.conditions(), second.conditions())
    for action in actions[200:]:
        assert_equal_conditions(first.step(action), second.step(action))
    assert {k: v.tobytes() for k, v in first.state().items()} == {
        k: v.tobytes() for k, v in second.state().items()
    }


def test_conditions_have_the_promised_shapes_and_ranges():
    conditioner = make_conditioner()
    rng = np.random.default_rng(0)
    for action in rng.integers(len(ACTIONS), size=150).repeat(4):
        conditions = conditioner.step(action)
        assert conditions.pose.shape == (POSE_SIZE,)
        assert conditions.pose.dtype == conditions.audio.dtype == np.float32
        assert conditions.audio.shape == (AUDIO_SIZE,)
        assert np.abs(conditions.pose).max() <= 1.2
        assert 0.0 <= conditions.audio.min() <= conditions.audio.max() <= 1.0


def test_pose_tells_where_the_camera_is_and_loops_with_the_world():
    conditioner = StageConditioner()
    poses = [
        conditioner.reset(scene=Scene(), rng=np.random.default_rng(0), x=x).pose
        for x in (40.0, 1640.0, 840.0)
    ]
    np.testing.assert_allclose(poses[0], poses[1], atol=1e-5)
    np.testing.assert_allclose([pose[36] for pose in poses], [0.025, 0.025, 0.525])


def test_pose_tells_the_clock_and_who_crouches():
    conditioner = make_conditioner()
    poses = [conditioner.step(IDLE).pose for _ in range(20)]
    np.testing.assert_array_equal([pose[37] for pose in poses], np.arange(1, 21) % 16 / 16)
    assert not any(pose[35] for pose in poses)
    assert conditioner.step(ACTIONS.index("crouch")).pose[35] == 1.0


def test_own_voice_opens_the_mouth_while_talking_only():
    conditioner = make_conditioner()
    mouth, own = [], []
    for action in [IDLE] * 20 + [TALK] * 60 + [IDLE] * 20:
        own.append(conditioner.step(action).audio[:NUM_MELS])
        mouth.append(conditioner.mouth_open)
    assert np.max(own[:20]) == 0.0
    assert np.max(own[80:]) == 0.0
    assert max(mouth[20:80]) > 0.6
    assert np.ptp(mouth[30:80]) > 0.3
    assert mouth[-1] < 0.01


def test_another_sentence_each_time_talk_begins():
    conditioner = make_conditioner()
    heard = []
    for _ in range(6):
        heard.append(conditioner.step(TALK).audio[:NUM_MELS].tobytes())
        conditioner.step(IDLE)
    assert len(set(heard)) > 3


def test_the_character_listens_while_the_other_speaks():
    conditioner = make_conditioner()
    gaze, speaks = [], []
    for _ in range(600):
        audio = conditioner.step(IDLE).audio
        speaks.append(audio[NUM_MELS:].any())
        gaze.append(conditioner.gaze)
    assert 0.05 < np.mean(speaks) < 0.5
    assert not any(speaks[:60])
    assert max(gaze) > 0.9
    assert min(gaze) < 0.05


def test_live_audio_replaces_the_voices():
    conditioner = make_conditioner()
    loud = np.full(NUM_MELS, 0.8, np.float32)
    audio = conditioner.step(IDLE, own_voice=loud, other_voice=loud).audio
    np.testing.assert_array_equal(audio, np.concatenate((loud, loud)))
    assert conditioner.mouth_open > 0.4


def test_text_changes_with_action_and_scene_only_and_never_holds_a_players_own_words():
    conditioner = make_conditioner()
    running = {conditioner.step(RUN).text for _ in range(30)}
    assert len(running) == 1
    assert conditioner.step(IDLE).text not in running
    conditioner.set_scene(Scene(place="desert"))
    assert conditioner.step(RUN).text not in running
    conditioner.set_prompt("at the beach with a dragon")
    text = conditioner.step(RUN).text
    assert scene_from_text(text, Scene()).place == "beach"
    assert "dragon" not in text
    with pytest.raises(ValueError, match="not understood: dragon"):
        conditioner.set_prompt("a dragon")
    assert conditioner.step(RUN).text == text
    conditioner.set_prompt(None)
    conditioner.set_scene(Scene())
    assert conditioner.step(RUN).text in running
    with pytest.raises(ValueError, match="512 bytes"):
        conditioner.set_prompt("x" * (PROMPT_BYTES + 1))


def test_scene_from_text_understands_every_description():
    scenes = list(itertools.product(PLACES, TIMES, WEATHERS, OUTFITS))
    for variant in range(NUM_TEXT_VARIANTS):
        for names in scenes[variant % 23 :: 23]:
            scene = Scene(*names)
            other = Scene(
                *(
                    known[known[0] == name]
                    for known, name in zip((PLACES, TIMES, WEATHERS, OUTFITS), names, strict=True)
                )
            )
            assert scene_from_text(describe(scene, "kick", variant), other) == scene


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Take me to the SEA at midnight!", Scene("beach", "night", "clear", "red jacket")),
        ("heavy storm, neon", Scene("night city", "noon", "rain", "red jacket")),
        ("someone in a violet gown", Scene("meadow", "noon", "clear", "purple dress")),
        ("", Scene()),
        ("xyzzy", Scene()),
    ],
)
def test_free_text_becomes_a_scene(text, expected):
    assert scene_from_text(text, Scene()) == expected


def test_unknown_scene_words_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'desert'"):
        Scene(place="dessert")
    with pytest.raises(ValueError, match="did you mean 'rain'"):
        Scene(weather="rainy")


def test_weather_is_clear_more_often_than_not():
    rng = np.random.default_rng(0)
    weathers = [Scene.sample(rng).weather for _ in range(1000)]
    assert weathers.count("clear") / 1000 == pytest.approx(0.55, abs=0.05)
    assert set(weathers) == set(WEATHERS)


def test_the_shipped_bank_has_many_sentences_in_many_languages():
    bank = load_speech_bank()
    assert len(bank) == len(bank.languages) >= 35
    assert len(set(bank.languages)) >= 6
    for sentence in bank.sentences:
        assert sentence.shape[1] == NUM_MELS
        assert 0.0 <= sentence.min() < sentence.max() <= 1.0
        assert max(loudness(vector) for vector in sentence) > 0.3


def test_a_track_waits_plays_and_falls_silent():
    bank = load_speech_bank()
    track = SpeechTrack(bank)
    track.play(2, -3)
    length = len(bank.sentences[2])
    vectors = np.stack([track.step() for _ in range(length + 6)])
    assert not vectors[:3].any()
    np.testing.assert_array_equal(vectors[3 : 3 + length], bank.sentences[2])
    assert not vectors[3 + length :].any()
    assert track.is_over
    with pytest.raises(ValueError, match="sentence must be"):
        track.play(len(bank))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_features_peak_at_the_band_of_a_tone_at_any_rate(rate):
    time = np.arange(rate) / rate
    low, high = (
        features_from_audio(0.5 * np.sin(2 * np.pi * hz * time), rate) for hz in (300.0, 2500.0)
    )
    assert low.shape == high.shape == (20, NUM_MELS)
    assert low[5].argmax() < 5 < 8 < high[5].argmax()
    assert not features_from_audio(np.zeros(rate), rate).any()


def test_a_step_of_audio_gives_the_same_features_live_and_in_a_file():
    samples = np.random.default_rng(0).normal(0.0, 0.1, 4 * 800)
    whole = features_from_audio(samples, 16_000)
    live = np.concatenate([features_from_audio(part, 16_000) for part in np.split(samples, 4)])
    np.testing.assert_allclose(whole, live, atol=1e-6)


def test_audio_that_is_not_mono_is_refused():
    with pytest.raises(ValueError, match="mono"):
        features_from_audio(np.zeros((100, 2)), 16_000)
    with pytest.raises(ValueError, match="positive"):
        features_from_audio(np.zeros(100), 0)
