import itertools

import numpy as np
import pytest

from envs.stage.conditioner import AUDIO_SIZE, POSE_SIZE, StageConditioner
from envs.stage.controller import ACTIONS
from envs.stage.looks import OUTFITS
from envs.stage.moods import PLACES, TIMES, WEATHERS
from envs.stage.scene import NUM_TEXT_VARIANTS, Scene, describe
from envs.stage.skeleton import KEYPOINTS
from envs.stage.speech import NUM_MELS, features_from_audio, load_speech_bank, loudness
from envs.stage.words import scene_from_text
from midas_world.teachers.words import PROMPT_BYTES
from midas_world.world import START_STATES_NAME, find_world, load_start_states

TALK, IDLE, RUN = (ACTIONS.index(name) for name in ("talk", "idle", "run_right"))
WRISTS = [KEYPOINTS.index("wrist_l"), KEYPOINTS.index("wrist_r")]


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
        assert conditions.pose[38] == conditioner.shows_face
        assert conditions.pose.dtype == conditions.audio.dtype == np.float32
        assert conditions.audio.shape == (AUDIO_SIZE,)
        assert np.abs(conditions.pose).max() <= 1.2
        assert 0.0 <= conditions.audio.min() <= conditions.audio.max() <= 1.0


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


def speak(
    conditioner: StageConditioner, own: np.ndarray, *, action: int = TALK
) -> tuple[np.ndarray, np.ndarray]:
    """Return how high both hands are, left and right, and how loud (S, 20) live audio is."""
    hands = [(conditioner.step(action, own_voice=v), conditioner.keypoints())[1] for v in own]
    return -np.array(hands)[:, WRISTS, 1], np.array([loudness(vector) for vector in own])


@pytest.mark.parametrize("facing", [-1, 1])
def test_hands_follow_how_loud_the_voice_is(facing):
    """The near hand follows syllables, the far one the phrase; another sentence explains less."""
    near, far = (0, 1) if facing < 0 else (1, 0)
    bank = load_speech_bank()
    heights, voices = [], []
    for sentence in bank.sentences[::5]:
        conditioner = StageConditioner()
        conditioner.reset(scene=Scene(), rng=np.random.default_rng(0), facing=facing)
        hands, loud = speak(conditioner, np.concatenate((sentence, np.zeros((12, NUM_MELS)))))
        heights.append(hands)
        voices.append(loud)
        assert np.corrcoef(hands[:, near], loud)[0, 1] > 0.75
        assert np.ptp(hands, axis=0).min() > 10.0  # px
        phrase = np.convolve(loud, np.ones(8) / 8)[: len(loud)]
        assert np.corrcoef(hands[:, far], phrase)[0, 1] > 0.75
    inner = slice(6, 24)  # between the first rise and the end, which all sentences share
    wrong = [
        np.corrcoef(height[inner, near], voice[inner])[0, 1]
        for height, voice in zip(heights, voices[1:] + voices[:1], strict=True)
    ]
    assert abs(np.mean(wrong)) < 0.3


def test_arms_rest_when_nothing_is_said():
    silence = np.zeros((60, NUM_MELS), np.float32)
    talker, stander = make_conditioner(), make_conditioner()
    hands, _ = speak(talker, silence)
    standing, _ = speak(stander, silence, action=IDLE)
    np.testing.assert_allclose(hands[6:], standing[6:], atol=0.1)
    speak(talker, load_speech_bank().sentences[0])
    assert (talker.keypoints() - stander.keypoints())[WRISTS, 1].max() < -5.0
    falling, _ = speak(talker, silence)
    standing, _ = speak(stander, silence, action=IDLE)
    assert np.abs(falling[-1] - standing[-1]).max() < 1.0


def test_live_audio_raises_the_same_hands_as_the_bank_and_of_one_who_idles():
    told, live, idle = make_conditioner(), make_conditioner(), make_conditioner()
    for _ in range(40):
        heard = told.step(TALK)
        assert_equal_conditions(live.step(TALK, own_voice=heard.audio[:NUM_MELS]), heard)
        idle.step(IDLE, own_voice=heard.audio[:NUM_MELS])
    np.testing.assert_array_equal(idle.keypoints(), live.keypoints())
    assert max(live.hands) > 0.3


def test_gestures_stay_between_standing_and_stretched_out():
    """Within what worlds have always seen of talk, and no joint jumps."""
    conditioner = make_conditioner()
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=(300, NUM_MELS)).astype(np.float32) * rng.integers(2, size=(300, 1))
    poses = [(conditioner.step(TALK, own_voice=v), conditioner.keypoints())[1] for v in noise]
    hands = np.array(poses)[:, WRISTS]
    assert 90.0 < hands[..., 1].min() < hands[..., 1].max() < 133.0
    assert np.abs(np.diff(poses, axis=0)).max() < 20.0


def test_loud_syllables_raise_the_brows():
    conditioner = make_conditioner()
    said = [(conditioner.step(TALK).audio, conditioner.brows) for _ in range(200)]
    brows = np.array([brow for _, brow in said])
    loud = np.array([loudness(audio[:NUM_MELS]) for audio, _ in said])
    assert brows.min() == 0.0
    assert brows.max() > 0.9
    assert np.median(loud[brows > 0.5]) > 1.5 * np.median(loud[brows == 0.0])


def test_the_character_looks_at_who_speaks_and_nods_at_pauses():
    conditioner = make_conditioner()
    sentence = load_speech_bank().sentences[0]
    silence = np.zeros((30, NUM_MELS), np.float32)
    gaze, nods, heads = [], [], []
    for vector in np.concatenate((silence, sentence, silence[:12], sentence, silence)):
        conditioner.step(IDLE, other_voice=vector)
        gaze.append(conditioner.gaze)
        nods.append(conditioner.nod)
        heads.append(conditioner.keypoints()[0, 1] - conditioner.controller.keypoints()[0, 1])
    ends = 30 + len(sentence), 42 + 2 * len(sentence)
    assert max(gaze[:30]) == max(nods[:30]) == 0.0
    assert min(gaze[40 : ends[1]]) > 0.8
    assert gaze[-1] < 0.1
    for end in ends:
        assert max(nods[end : end + 12]) > 0.9
    np.testing.assert_allclose(heads, 3.5 * np.array(nods), atol=1e-4)


def test_shipped_start_states_load_early_ones_too_but_none_that_is_longer():
    conditioner = make_conditioner()
    for start in load_start_states(find_world("stage") / START_STATES_NAME):
        conditioner.load_state(start.conditioner_state)
        np.testing.assert_allclose(conditioner.conditions().pose, start.conditions[-1].pose)
        conditioner.step(TALK)
    state = conditioner.state()
    early = state | {"levels": state["levels"][:2]}  # as before hands followed the voice
    conditioner.load_state(early)
    assert conditioner.hands == (0.0, 0.0)
    assert conditioner.mouth_open == state["levels"][0]
    with pytest.raises(ValueError, match="broadcast"):
        conditioner.load_state(state | {"levels": np.zeros(6)})


@pytest.mark.parametrize("voice", [np.full(NUM_MELS, np.nan), np.zeros(2 * NUM_MELS)])
@pytest.mark.parametrize("whose", ["own_voice", "other_voice"])
def test_a_voice_of_no_use_is_refused_and_changes_nothing(voice, whose):
    conditioner = make_conditioner()
    before = {name: array.tobytes() for name, array in conditioner.state().items()}
    with pytest.raises(ValueError, match=r"must be \(20,\) finite features"):
        conditioner.step(TALK, **{whose: voice})
    assert {name: array.tobytes() for name, array in conditioner.state().items()} == before


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
            fields = zip((PLACES, TIMES, WEATHERS, OUTFITS), names, strict=True)
            other = Scene(*(known[known[0] == name] for known, name in fields))
            assert scene_from_text(describe(scene, "kick", variant), other) == scene


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
