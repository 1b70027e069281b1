"""Play a world: `python play.py`, or `midas-world play`.

A window opens at once and the world loads behind it; `--headless` plays a list of actions without
one. What the window does is in envs/play.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pygame

from envs.keyboard import KeyboardError, hotkey
from envs.picture import open_display
from envs.play.game.game import Game
from envs.play.game.game_thread import GameThread
from envs.play.game.goals import BestList
from envs.play.game.human import open_human_teacher
from envs.play.game.opening import open_teacher, open_world
from envs.play.game.playable import Loading, Playable
from envs.play.game.rewind import DEFAULT_SECONDS
from envs.play.game.settings import MAX_VOLUME, Settings, SettingsFile
from envs.play.headless import read_actions, run_headless
from envs.play.studio.saver import FrameSaver
from envs.play.voice.conversation import Conversation, Respond
from envs.play.voice.microphone import Microphone
from envs.play.voice.sentences import BankVoice, choose_sentence, find_language
from envs.play.voice.speaker import Speaker
from envs.play.voice.voices import FileVoice, LiveVoices, num_voice_steps
from envs.play.window.window import Window
from midas_world import __version__
from midas_world.arguments import add_trust_option, count, natural, percentage, positive
from midas_world.edge import DEBUG, DEBUG_HELP, run_command
from midas_world.teachers.policies import StickyPolicy
from midas_world.terminal import leave, orderly_end
from midas_world.trust import import_function
from midas_world.user_folders import settings_folder

EXIT_DIFFERENT = 1
EXIT_NOT_RECORDED = 1
STAGE = "stage"

_ALONE = ("steps", "actions", "save")  # options of play without a window
_ANSWER_STEPS = 80  # for the last answer of a conversation


def main(argv: Sequence[str] | None = None) -> int:
    """Play as the command line says and return the exit code; of errors, see edge.py."""
    words = sys.argv[1:] if argv is None else argv
    return run_command("play", _play, words, expected=(pygame.error,))


def _play(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    # Which backend runs the world, and why.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("torch").setLevel(logging.WARNING)  # else it tells of its caches at the end
    # torch's threads spin while they wait, which stalls them where another program computes too:
    # two cores, one of them busy, made a step take 400 ms instead of 16. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if args.episodes and args.teacher in (None, STAGE):
        raise ValueError("--episodes goes with --teacher PRESET")
    if not args.headless and (alone := [n for n in _ALONE if getattr(args, n) is not None]):
        raise ValueError(f"--{alone[0]} goes with --headless; in the window, F8 saves a film")
    loading = Loading("opening the game" if args.teacher else "loading the world")
    opener: Callable[[], Playable] = open_teacher
    if args.teacher not in (None, STAGE):
        opener = partial(open_human_teacher, args.teacher, folder=args.episodes, trust=args.trust)
    elif args.teacher is None:
        opener = partial(
            open_world,
            args.world or "stage",
            backend=args.backend,
            num_denoise_steps=args.denoise_steps,
            prepares=not args.headless,
            trust=args.trust,
            loading=loading,
        )
    with orderly_end():
        if args.resimulate or args.replay:
            return (_resimulate if args.resimulate else _replay)(args)
        if args.headless:
            return _play_headless(args, opener)
        return _play_window(args, opener, loading)


def _play_window(args: argparse.Namespace, opener: Callable[[], Playable], loading: Loading) -> int:
    name = Path(args.teacher).stem if args.teacher else Path(args.world or STAGE).name
    voices = _voices(args)
    kind = "the real game" if args.teacher else "a learned world"
    folder = settings_folder()
    open_display(instead="use --headless to play without one")
    settings = SettingsFile(folder / "settings.json")
    window = Window(f"{name}, {kind}", loading=loading, settings=settings)
    thread = GameThread(
        opener,
        window.inputs,
        seed=args.seed,
        prompt=args.prompt,
        fps=args.fps,
        rewind_seconds=args.rewind_seconds,
        record=args.record,
        voices=voices,
        speaker=_speaker(args, settings.settings),
        best=BestList(folder / "best.json"),
        notify=window.notify,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(voices.close)
        if args.global_hotkey:
            _listen_everywhere(thread, stack)
        return _run(window, thread)


def _run(window: Window, thread: GameThread) -> int:
    """Play in a window until the player quits; what ended the game otherwise is raised."""
    with contextlib.ExitStack() as stack:
        # Films are waited for, unless Ctrl-C or SIGTERM ends it.
        stack.push(lambda kind, *_: window.close(waits=not kind or issubclass(kind, Exception)))
        thread.start()
        window.run(thread)
    if thread.error is not None:
        raise thread.error
    return 0


def _voices(args: argparse.Namespace) -> LiveVoices:
    """Return the live voices that the player asks for."""
    if args.voice and args.microphone:
        raise ValueError("--voice and --microphone are both one voice: choose one")
    rng = np.random.default_rng(args.seed)
    language = args.language or "en-us"
    said = FileVoice(args.voice) if args.voice else None
    if args.microphone:
        said = Microphone()
        print("play: the microphone is open")
    if args.converse:
        if said is None:
            raise ValueError("--converse needs somebody to listen to: --voice FILE or --microphone")
        own = Conversation(said, _respond(args.respond, find_language(language), rng))
        return LiveVoices(own, own.other, language=language)
    if said is None and args.language and not args.say:
        said = BankVoice(language, rng)
    voices = LiveVoices(said, language=language)
    if args.say:
        args.steps = args.steps or voices.say(args.say) + 2
    return voices


def _respond(name: str | None, language: str, rng: np.random.Generator) -> Respond:
    """Return what answers in a conversation: a program's function, or sentences of the bank."""
    if name is None:
        return lambda *_: choose_sentence(language, rng)
    return import_function(name, field="--respond")


def _speaker(args: argparse.Namespace, settings: Settings) -> Speaker:
    volume = settings.volume / MAX_VOLUME if args.volume is None else args.volume
    return Speaker(volume=volume, is_muted=args.mute)


def _listen_everywhere(thread: GameThread, stack: contextlib.ExitStack) -> None:
    """Let F9 record whatever has the focus, or say why it cannot; play goes on either way."""
    try:
        stack.callback(hotkey("<f9>", thread.toggle_recording).stop)
    except KeyboardError as error:
        thread.message = f"F9 records in this window only: {error}"
        print(f"play: {thread.message}", file=sys.stderr)


def _replay(args: argparse.Namespace) -> int:
    # PyAV is loaded by those who want to see a film.
    from envs.play.replay.recorded import Tape, open_recorded
    from midas_world.sessions.session import load_session

    tape = Tape(load_session(args.replay))
    open_display(instead="midas-world export SESSION --to mp4 makes a film of it")
    settings = SettingsFile(settings_folder() / "settings.json")
    window = Window(args.replay.resolve().name, settings=settings)
    thread = GameThread(
        partial(open_recorded, tape.session, world=args.world, trust=args.trust),
        window.inputs,
        film=tape.film(),
        rewind_seconds=args.rewind_seconds,
        speaker=_speaker(args, settings.settings),
        notify=window.notify,
    )
    return _run(window, thread)


def _resimulate(args: argparse.Namespace) -> int:
    from envs.play.replay.recorded import Tape, make_recorded
    from envs.play.replay.resimulate import resimulate
    from midas_world.sessions.session import load_session

    if args.replay is None:
        raise ValueError("--resimulate runs a session again: name it with --replay SESSION")
    tape = Tape(load_session(args.replay))
    env = make_recorded(tape.session, world=args.world, trust=args.trust)
    try:
        result = resimulate(tape, env, on_frame=partial(_tell_equal, len(tape)))
    finally:
        env.close()
    print(result)
    return 0 if result.is_equal else EXIT_DIFFERENT


def _tell_equal(num_frames: int, num_equal: int) -> None:
    if num_equal % 500 == 0:
        print(f"{num_equal} of {num_frames} frames are equal so far", file=sys.stderr)


def _play_headless(args: argparse.Namespace, opener: Callable[[], Playable]) -> int:
    if args.actions and not args.actions.is_file():  # told before a world is loaded
        raise ValueError(f"there is no file of actions at {args.actions}")
    voices = _voices(args)
    playable = opener()
    game = Game(playable, seed=args.seed, prompt=args.prompt, voices=voices)
    ended_early: list[str] = []
    saver = None

    def say_recording_ended(words: str) -> None:
        ended_early.append(words)
        print(f"play: recording ended: {words}", file=sys.stderr)

    with contextlib.ExitStack() as stack:
        stack.callback(game.close)
        stack.callback(voices.close)
        names = playable.keymap.actions
        if args.actions is not None:
            actions = _sized(read_actions(args.actions, names), args.steps)
        elif args.voice or args.say:
            more = _ANSWER_STEPS if args.converse else 0
            actions = [0] * (args.steps or num_voice_steps(args.voice) + more)
        else:
            policy = StickyPolicy(playable.env.action_space)
            policy.reset(np.random.default_rng(args.seed))
            actions = [policy.act(None, {}) for _ in range(args.steps or 200)]
        if args.save:
            fps = args.fps or playable.fps
            saver = FrameSaver(args.save, fps=fps, num_frames=len(actions) + 1)
            stack.enter_context(saver)
        if args.record:
            game.recorder.start(args.record, fps=args.fps, on_error=say_recording_ended)
        # A microphone gives so much sound a second and no more.
        fps = args.fps or (playable.fps if args.microphone else None)
        report = run_headless(game, actions, fps=fps, keep=saver.add if saver else lambda _: None)
        print(f"{playable.title}: {playable.backend}\n{report}")
        if words := voices.take_message():
            print(f"play: {words}", file=sys.stderr)
        if args.prompt:
            print(f"prompt: {game.understand(args.prompt)}")
        if saver:
            saver.close()
            print(f"saved {saver.path}{saver.words and f' ({saver.words})'}")
        if args.record:
            game.recorder.stop(wait=True)
            if ended_early:
                return EXIT_NOT_RECORDED
            print(f"recorded {args.record}")
    return 0


def _sized(actions: list[int], num_steps: int | None) -> list[int]:
    """Return actions cut to a number of steps, or filled up with the first of all actions."""
    if num_steps is None:
        return actions
    return actions[:num_steps] + [0] * (num_steps - len(actions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="play", description="Play a world, or its teacher.")
    parser.add_argument("--version", action="version", version=f"midas-world {__version__}")
    parser.add_argument("--world", help="a shipped world's name, or a folder (default: stage)")
    parser.add_argument(
        "--teacher",
        nargs="?",
        const=STAGE,
        metavar="PRESET",
        help="play the game that a world learned from: Stage, or the env of a preset that "
        "`midas-world collect --env` wrote",
    )
    parser.add_argument(
        "--episodes",
        type=Path,
        metavar="FOLDER",
        help="keep play of --teacher PRESET here, as episodes to train on",
    )
    add_trust_option(parser)
    parser.add_argument("--seed", type=natural, default=0, help="of the first episode")
    parser.add_argument("--prompt", help="words for what the world should look like")
    parser.add_argument("--fps", type=positive, help="steps per second (default: the world's)")
    parser.add_argument(
        "--backend",
        default="auto",
        help="what runs the networks: auto, torch, onnx, tensorrt or rtx; torch's precision may "
        "follow: torch:float32",
    )
    parser.add_argument("--denoise-steps", type=count, help="quality against speed")
    parser.add_argument(
        "--rewind-seconds",
        type=positive,
        default=DEFAULT_SECONDS,
        help="how far Backspace goes back at most (default: %(default)g; 256 MB at most)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="record a session into this new folder from the start (in the window, F9 starts and "
        "stops one under recordings/)",
    )
    parser.add_argument(
        "--global-hotkey",
        action="store_true",
        help="let F9 record while another window has the focus; pynput then listens to all keys",
    )
    parser.add_argument(DEBUG, action="store_true", help=DEBUG_HELP)
    sound = parser.add_argument_group("sound")
    sound.add_argument(
        "--volume",
        type=percentage,
        metavar="PERCENT",
        help="0 to 100 (default: as it was; in the window, - and +)",
    )
    sound.add_argument("--mute", action="store_true", help="begin in silence (in the window, M)")
    sound.add_argument(
        "--voice",
        type=Path,
        metavar="FILE",
        help="an audio file that the character says: WAV, FLAC, MP3, Ogg and more, of any rate",
    )
    sound.add_argument(
        "--microphone",
        action="store_true",
        help="let the character say what you say; needs pip install 'midas-world[voice]'",
    )
    sound.add_argument(
        "--language",
        metavar="CODE",
        help="in which the character talks: en, de, fr, es, it, pt, ru, id, nl, pl, sv, fi; with "
        "--say any that espeak-ng knows",
    )
    sound.add_argument(
        "--say",
        metavar="TEXT",
        help="what the character says first, by espeak-ng, which must be "
        "installed, or by pip install 'midas-world[speech]'",
    )
    sound.add_argument(
        "--converse",
        action="store_true",
        help="the voice is the other speaker's: the character listens, and answers in a pause",
    )
    sound.add_argument(
        "--respond",
        metavar="MODULE:FUNCTION",
        help="answers in a conversation: (samples, rate) -> samples (default: bank's sentences)",
    )
    again = parser.add_argument_group("a recorded session")
    again.add_argument(
        "--replay", type=Path, metavar="SESSION", help="watch it; T takes over and plays on"
    )
    again.add_argument(
        "--resimulate",
        action="store_true",
        help="run the world again and compare every frame: exit code 0 if all are equal, else 1",
    )
    alone = parser.add_argument_group("without a window")
    alone.add_argument("--headless", action="store_true", help="play without a display")
    alone.add_argument("--steps", type=count, help="how many (default: the file's, or 200)")
    alone.add_argument(
        "--actions", type=Path, help='a file of action names, such as "walk_right x 20", in lines'
    )
    alone.add_argument(
        "--save",
        type=Path,
        help="an .mp4 with its sound, a .gif, a .png (a strip of frames), or a folder for frames",
    )
    return parser


if __name__ == "__main__":
    leave(main())
