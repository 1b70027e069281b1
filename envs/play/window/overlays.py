"""What the window writes over a game's picture about the session: recording, engines, numbers."""

import pygame

from envs.play.game.moments import View
from envs.play.game.samples import Samples, milliseconds
from envs.play.game.session import Session
from envs.play.window import hud, panels


def draw_past(page: pygame.Surface, session: Session) -> None:
    """Draw how far back the game has run, while it does."""
    if session.status == "rewinding" and session.rewind is not None:
        kept = max(len(session.rewind) - 1, 1)
        panels.draw_rewind(
            page,
            share=session.rewind.num_before / kept,
            seconds=session.rewind.num_before * session.period_s,
        )


def draw_recording(page: pygame.Surface, session: Session) -> None:
    """Draw whether the microphone is open, and how the recording is doing, or why it is not."""
    if session.voices.listens:
        hud.draw_recording(page, "the microphone is open", at_left=True)
    if session.recording_error:
        text = f"not recording: {session.recording_error} (F9 tries again)"
        hud.draw_recording(page, text, is_error=True)
    elif (recording := session.recording) is not None:
        minutes, seconds = divmod(int(recording.seconds), 60)
        text = f"{minutes}:{seconds:02d}  {recording.num_bytes / 1e6:.1f} MB"
        if recording.waited_s >= 1.0:
            text += f"  the disk is slow: waited {recording.waited_s:.0f} s"
        hud.draw_recording(page, text)


def draw_preparation(page: pygame.Surface, session: Session) -> None:
    """Draw what is built in the background."""
    preparation = session.playable.preparation if session.playable else None
    if preparation is not None and preparation.words:
        top = page.get_height() - 4 * hud.MARGIN
        hud.draw_lines(page, [preparation.words], above=top)


def measurement_lines(session: Session, view: View, latencies: Samples) -> list[str]:
    """Return the session's numbers as lines for `hud.draw_lines`.

    Args:
        session: What is played.
        view: What is shown.
        latencies: From key presses to pictures, seconds.
    """
    interval = session.step_intervals.mean()
    rate = f"{1 / interval:.1f}" if interval > 0 else "-"
    return [
        f"steps per second  {rate}",
        f"step p50 / p99  {milliseconds(session.step_times, (50, 99))}",
        f"key to picture p50 / p95 / p99  {milliseconds(latencies, (50, 95, 99))}",
        f"missed deadlines  {session.num_missed}",
        f"action  {view.action_name.replace('_', ' ')}",
        f"prompt  {session.prompt or '-'}",
        f"words  {view.text}",
        f"step, score  {view.num_steps}, {round(view.score, 1):g}",
        f"backend  {session.playable.backend if session.playable else '-'}",
        f"because  {(session.playable.why if session.playable else '') or '-'}",
    ]
