"""Play a world: `python play.py`, or `midas-world play`.

A window opens at once and the world loads behind it; `--headless` plays a list of actions without
one. What the window does is in envs/play.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pygame

from envs.play.game import Game, Playable, open_teacher, open_world
from envs.play.headless import FrameSaver, parse_actions, run_headless, wandering_actions
from envs.play.session import Session
from envs.play.window import Window
from midas_world.types import MidasWorldError

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Play as the command line says and return the exit code."""
    args = _parser().parse_args(argv)
    # torch's threads spin while they wait, which stalls them where another program computes too:
    # two cores, one of them busy, made a step take 400 ms instead of 16. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    opener: Callable[[], Playable] = open_teacher
    if not args.teacher:
        opener = partial(
            open_world,
            args.world,
            backend=args.backend,
            num_denoise_steps=args.denoise_steps,
        )
    try:
        return (_play_headless if args.headless else _play_window)(args, opener)
    except (MidasWorldError, ValueError, OSError) as error:
        print(f"play: {error}", file=sys.stderr)
        return EXIT_USAGE


def _play_window(args: argparse.Namespace, opener: Callable[[], Playable]) -> int:
    try:
        _check_display()
        window = Window("Stage" if args.teacher else Path(args.world).name)
    except pygame.error as error:
        print(
            f"play: there is no display to open a window on ({error}); "
            "use --headless to play without one",
            file=sys.stderr,
        )
        return EXIT_USAGE
    session = Session(
        opener,
        window.inputs,
        seed=args.seed,
        prompt=args.prompt,
        fps=args.fps,
        notify=window.notify,
    )
    session.start()
    try:
        window.run(session)
    finally:
        window.close()
    if session.error is not None:
        raise session.error
    return 0


def _check_display() -> None:
    """Raise pygame.error if a window would open where nobody sees it, without being asked to."""
    pygame.display.init()
    driver = pygame.display.get_driver()
    if driver in ("dummy", "offscreen") and "SDL_VIDEODRIVER" not in os.environ:
        pygame.display.quit()
        raise pygame.error("SDL found no video device")


def _play_headless(args: argparse.Namespace, opener: Callable[[], Playable]) -> int:
    if args.actions and not args.actions.is_file():
        raise ValueError(f"there is no file of actions at {args.actions}")
    text = args.actions.read_text(encoding="utf-8") if args.actions else None
    playable = opener()
    game = Game(playable, seed=args.seed, prompt=args.prompt)
    try:
        names = playable.keymap.actions
        if text is None:
            rng = np.random.default_rng(args.seed)
            actions = wandering_actions(args.steps or 200, len(names), rng)
        else:
            actions = _sized(parse_actions(text, names), args.steps)
        saver = None
        if args.save:
            fps = args.fps or playable.fps
            saver = FrameSaver(args.save, fps=fps, num_frames=len(actions) + 1)
        report = run_headless(
            game, actions, fps=args.fps, keep=saver.add if saver else lambda _: None
        )
        print(f"{playable.title}: {playable.backend}\n{report}")
        if saver:
            saver.close()
            print(f"saved {saver.path}")
    finally:
        game.close()
    return 0


def _sized(actions: list[int], num_steps: int | None) -> list[int]:
    """Return actions cut to a number of steps, or filled up with the first of all actions."""
    if num_steps is None:
        return actions
    return actions[:num_steps] + [0] * (num_steps - len(actions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="play", description="Play a world, or its teacher.")
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument("--teacher", action="store_true", help="play Stage itself, drawn by pygame")
    parser.add_argument("--seed", type=_natural, default=0, help="of the first episode")
    parser.add_argument("--prompt", help="words for what the world should look like")
    parser.add_argument("--fps", type=_positive, help="steps per second (default: the world's)")
    parser.add_argument("--backend", default="auto", help="what runs the networks: auto or torch")
    parser.add_argument("--denoise-steps", type=_natural, help="quality against speed")
    alone = parser.add_argument_group("without a window")
    alone.add_argument("--headless", action="store_true", help="play without a display")
    alone.add_argument("--steps", type=_natural, help="how many (default: the file's, or 200)")
    alone.add_argument(
        "--actions", type=Path, help='a file of action names, such as "walk_right x 20", in lines'
    )
    alone.add_argument(
        "--save", type=Path, help="a .gif, a .png (a strip of frames) or a folder for all frames"
    )
    return parser


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
