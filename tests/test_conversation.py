"""Conversation, languages and texts: who speaks when, how soon, and in which language."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pygame
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher
from envs.play.voice.conversation import Conversation
from envs.play.voice.sentences import (
    BankVoice,
    find_language,
    in_steps,
    language_name,
    languages,
    synthesise,
)
from envs.play.voice.voices import LiveVoices
from envs.stage.controller import ACTIONS
from envs.stage.speech import load_speech_bank, load_speech_sound
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, to_int16
from midas_world.sessions.session import load_session
from midas_world.world import KeyMap
from tests.fakes import CountingEnv
from tests.test_sound import loudest_hz, tone, write_sound
from tests.windows import playing, press, press_until, run_until, type_in

IDLE, TALK = ACTIONS.index("idle"), ACTIONS.index("talk")
SILENCE = np.zeros(SAMPLES_PER_STEP, np.int16)


class Script:
    """A voice of given steps."""

    listens = False

    def __init__(self, *parts: np.ndarray):
        self.message = ""
        self._steps = iter([step for part in parts for step in in_steps(part)])

    def step(self, *, talks):
        return next(self._steps, None)

    def close(self):
        pass


def silence(num_steps: int) -> np.ndarray:
    return np.tile(SILENCE, num_steps)


def sentence(number: int = 0) -> np.ndarray:
    return load_speech_sound()[number]


class Answer:
    """A hook that notes what it heard."""

    def __init__(self, samples):
        self.samples = samples
        self.heard: list[np.ndarray] = []

    def __call__(self, samples, sample_rate):
        assert sample_rate == SAMPLE_RATE_HZ
        self.heard.append(samples)
        return self.samples


def talk(conversation: Conversation, num_steps: int) -> np.ndarray:
    """Return the own voice of some steps, (T, S)."""
    voices = LiveVoices(conversation, conversation.other)
    said = []
    for _ in range(num_steps):
        (own, _), _, _ = voices.step(talks=False)
        said.append(own)
        if conversation._answer is not None:  # the hook's thread has its time
            conversation._answer.exception(timeout=5.0)
    return np.stack(said)


def test_it_answers_once_the_other_one_has_finished_and_says_how_soon():
    answer = Answer(to_int16(tone(440.0, 1.0)))
    length = len(sentence()) // SAMPLES_PER_STEP
    conversation = Conversation(Script(silence(10), sentence()), answer)
    said = talk(conversation, 10 + length + 45)
    conversation.close()
    loud = np.flatnonzero(np.abs(said).max(axis=1) > 1000)
    assert loud[0] >= 10 + length
    assert len(loud) == 20
    assert loudest_hz(said[loud].ravel()) == pytest.approx(440.0, abs=2.0)
    (latency,) = conversation.latencies_ms
    # The bank's sentences end loud: from there to the answer's first sound.
    assert abs(latency - 50 * (loud[0] - (10 + length - 1))) <= 150
    assert 450 <= latency <= 700
    assert conversation.message == f"answered {latency} ms after the end of speech"
    (heard,) = answer.heard
    assert abs(heard.size - len(sentence())) < 14 * SAMPLES_PER_STEP


def test_the_first_mouth_movement_comes_with_the_answer():
    conversation = Conversation(Script(sentence()), Answer(sentence(3)))
    voices = LiveVoices(conversation, conversation.other)
    game = Game(open_teacher(), seed=0, voices=voices)
    game.reset()
    conditioner = game.playable.env.unwrapped._conditioner
    mouth, gaze, names = [], [], []
    for _ in range(70):
        names.append(game.step(IDLE).action_name)
        mouth.append(conditioner.mouth_open)
        gaze.append(conditioner.gaze)
        if conversation._answer is not None:
            conversation._answer.exception(timeout=5.0)
    game.close()
    length = len(sentence()) // SAMPLES_PER_STEP
    assert max(gaze[10:length]) > 0.9  # it turns to whom it listens to
    assert max(mouth[:length]) == 0.0
    opens = int(np.argmax(np.array(mouth) > 0.1))
    assert abs(50 * (opens - (length - 1)) - conversation.latencies_ms[0]) <= 200
    assert names[opens + 2] == "talk"


def test_it_does_not_talk_over_who_begins_again():
    answer = Answer(to_int16(tone(440.0, 5.0)))
    first = len(sentence(0)) // SAMPLES_PER_STEP
    other = Script(sentence(0), silence(20), sentence(1), sentence(2))
    conversation = Conversation(other, answer)
    said = talk(conversation, first + 20 + 30)
    conversation.close()
    loud = np.abs(said).max(axis=1) > 1000
    assert loud[first + 14 : first + 20].all()
    assert not loud[first + 20 + 8 :].any()


def test_a_cough_is_no_speech():
    answer = Answer(sentence())
    cough = np.random.default_rng(0).normal(0, 3000, 2 * SAMPLES_PER_STEP).astype(np.int16)
    conversation = Conversation(Script(silence(5), cough, silence(30)), answer)
    said = talk(conversation, 40)
    conversation.close()
    assert not said.any()
    assert not answer.heard


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (lambda *_: 1 / 0, "there is no answer: division by zero"),
        (lambda *_: np.zeros((2, 100)), r"an answer must be mono sound"),
        (lambda *_: "words", r"an answer must be mono sound"),
    ],
)
def test_a_hook_that_fails_is_told_and_the_conversation_goes_on(respond, message):
    conversation = Conversation(Script(sentence()), respond)
    said = talk(conversation, len(sentence()) // SAMPLES_PER_STEP + 20)
    conversation.close()
    assert not said.any()
    assert message in conversation.message


def test_without_webrtcvad_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(SoundError, match=r"midas-world\[voice\]"):
        Conversation(Script(), Answer(sentence()))


def respond_with_a_tone(samples, sample_rate):
    return tone(600.0, 0.5)


def test_command_converses_with_a_file_and_tells_the_latency(tmp_path, capsys):
    path = write_sound(tmp_path / "me.wav", sentence() / 32768, SAMPLE_RATE_HZ)
    command = ["--headless", "--teacher", "--voice", str(path), "--converse", "--fps", "100"]
    hook = ["--respond", f"{__name__}:respond_with_a_tone"]
    assert play.main([*command, *hook, "--record", str(tmp_path / "session")]) == 0
    assert "ms after the end of speech" in capsys.readouterr().err
    session = load_session(tmp_path / "session")
    sound = session.sound()
    steps = np.stack([sound.step(number) for number in range(session.num_frames)])
    heard = steps[:, 1].ravel()[SAMPLES_PER_STEP:]
    np.testing.assert_allclose(heard[: len(sentence())], sentence(), atol=1)
    answered = np.flatnonzero(np.abs(steps[:, 0]).max(axis=1))
    assert len(answered) == 10
    assert loudest_hz(steps[answered, 0].ravel()) == pytest.approx(600.0, abs=3.0)


# Languages


def test_there_are_twelve_languages_with_names_and_by_their_short_codes_too():
    short = ("en", "de", "fr", "es", "it", "pt", "ru", "id", "nl", "pl", "sv", "fi")
    assert [find_language(code) for code in short] == list(languages())
    assert {language_name(code)[0].isupper() for code in languages()} == {True}
    assert language_name("eo") == "eo"


def test_the_character_talks_in_the_language_that_was_asked_for():
    voice = BankVoice("fi", np.random.default_rng(0))
    assert voice.step(talks=False) is None
    heard = np.concatenate([voice.step(talks=True) for _ in range(60)])
    bank = load_speech_bank().languages
    finnish = [load_speech_sound()[n] for n, name in enumerate(bank) if name == "fi"]
    assert any(np.array_equal(heard[: len(one)], one) for one in finnish)


def test_a_key_goes_to_the_next_language():
    with playing(CountingEnv()) as (window, session):
        press(pygame.K_l)
        run_until(window, session, lambda: window.overlays.message == "the character speaks German")
        press_until(window, session, pygame.K_l, lambda: session.voices.language == "fr-fr")


def test_where_nobody_speaks_there_is_no_language_and_the_game_goes_on():
    silent = KeyMap(actions=("noop", "gas"), keys={"gas": ["up"]})
    with playing(CountingEnv(), fps=100, keymap=silent) as (window, session):
        press(pygame.K_l)
        told = "nobody speaks in this game"
        run_until(window, session, lambda: window.overlays.message == told)
        window._screens._settings.open(session, back=lambda: None)
        assert "speaks" not in "".join(map(str, window._screens.menu.entries))
        session.voices.speak("de")  # as other ways may lead there
        window._screens.close(session)
        steps = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > steps + 3)


# Texts


def test_a_text_is_said_from_the_next_step_on(monkeypatch):
    samples = to_int16(tone(500.0, 0.5))
    monkeypatch.setattr("envs.play.voice.voices.synthesise", lambda text, *, language: samples)
    voices = LiveVoices(language="de")
    assert voices.say("Guten Tag") == 10
    game = Game(open_teacher(), seed=0, voices=voices)
    game.reset()
    views = [game.step(IDLE) for _ in range(20)]
    game.close()
    said = np.concatenate([view.sound[0] for view in views if view.sound is not None])
    np.testing.assert_array_equal(said[: samples.size], samples)
    assert views[2].action_name == "talk"
    assert views[19].action_name == "idle"


def test_words_after_a_quote_are_said_and_others_are_a_prompt(monkeypatch):
    said = []
    monkeypatch.setattr(LiveVoices, "say", lambda self, text: said.append(text))
    with playing(CountingEnv()) as (window, session):
        press_until(window, session, pygame.K_t, lambda: window._prompt.is_open)
        type_in('"Guten Tag"')
        press_until(window, session, pygame.K_RETURN, lambda: said)
        assert window.overlays.message == "the character says: Guten Tag"
        assert session.prompt is None
    assert said == ["Guten Tag"]


def test_without_espeak_its_name_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SoundError, match=r"apt install espeak-ng.*midas-world\[speech\]"):
        synthesise("hello")


@pytest.fixture
def espeak_without_languages(monkeypatch):
    """Put a program in espeak-ng's place that knows no language."""

    def refuse(command, **_):
        words = b"Error: The specified espeak-ng voice does not exist."
        return subprocess.CompletedProcess(command, 1, b"", words)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", refuse)


def test_a_language_that_espeak_does_not_know_is_told(espeak_without_languages, capsys):
    command = ["--headless", "--teacher", "--say", "hello", "--language", "xx"]
    assert play.main(command) == 2
    assert "espeak-ng cannot say it as 'xx'" in capsys.readouterr().err


def test_a_language_that_espeak_does_not_know_ends_no_game(espeak_without_languages):
    with playing(CountingEnv()) as (window, session):
        session.voices = LiveVoices(language="xx")
        press_until(window, session, pygame.K_t, lambda: window._prompt.is_open)
        type_in('"hello')
        press(pygame.K_RETURN)
        run_until(window, session, lambda: "cannot say it as 'xx'" in window.overlays.message)
        steps = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > steps)


@pytest.mark.parametrize("text", ["", "   ", "x" * 501])
def test_texts_of_no_or_too_many_letters_are_refused(text):
    with pytest.raises(SoundError, match="1 to 500 characters"):
        synthesise(text)


@pytest.mark.parametrize("how", ["program", "library"])
def test_a_text_becomes_sound_by_program_or_library(how, monkeypatch):
    if how == "program" and shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    if how == "library":
        pytest.importorskip("espeakng_loader")
        monkeypatch.setattr(shutil, "which", lambda _: None)
    samples = synthesise("Guten Tag, wie geht es dir?", language="de")
    assert samples.dtype == np.int16
    assert 1.0 < samples.size / SAMPLE_RATE_HZ < 3.0
    assert np.abs(samples).max() > 5000
    with pytest.raises(SoundError, match="'xx'"):
        synthesise("hello", language="xx")
    began = time.perf_counter()
    assert synthesise("Bonjour", language="fr-fr").size > 3000
    assert time.perf_counter() - began < 5.0
