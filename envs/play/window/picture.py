"""The picture that plates lie over: the game's frame, or the world's beside its teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass

import pygame

from envs.picture import draw_frame
from envs.play.game.compare import Comparison, Pair
from envs.play.game.moments import View
from envs.play.window import panels
from envs.play.window.layout import Layout, Plate, arrange

# Beside the teacher so much height belongs to the frames and the trace, in px and as a share.
_SPLIT_HEIGHT, _SPLIT_SHARE = 130, 0.5


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What was drawn.

    Attributes:
        layout: Where plates lie, and the parts of the picture: "picture", or "left", "right" and
            "trace".
        shown: Where the picture lies, with all its parts.
        pair: World and teacher; None where the world is alone, or there is none yet.
    """

    layout: Layout
    shown: pygame.Rect
    pair: Pair | None = None


def draw_alone(
    surface: pygame.Surface,
    area: pygame.Rect,
    view: View,
    plates: Sequence[Plate],
    *,
    is_whole: bool,
) -> Drawn:
    """Draw a frame, and say where plates lie over it within an area."""
    shown = draw_frame(surface, view.frame, is_whole=is_whole)
    return Drawn(layout=arrange(area, plates), shown=shown.clip(surface.get_rect()))


def draw_beside(
    surface: pygame.Surface,
    area: pygame.Rect,
    view: View,
    plates: Sequence[Plate],
    comparison: Comparison,
) -> Drawn:
    """Draw the world's frame and the teacher's of the same step between plates."""
    middle = max(_SPLIT_HEIGHT, round(_SPLIT_SHARE * area.height))
    layout = arrange(area, plates, middle=middle)
    pair = comparison.pair
    note, left = "", view
    if comparison.error is not None:
        note = f"it failed: {comparison.error}"
    elif pair is None or abs(view.num_steps - pair.view.num_steps) > 1:
        behind = comparison.num_behind
        note = f"{behind} steps behind" if behind else "the teacher comes"
    else:
        left = pair.view  # the same step on both sides
    rects = panels.draw_split(
        surface,
        layout.free,
        left.frame,
        pair.teacher_frame if pair is not None else None,
        names=("the world", "the teacher"),
        trace=pair.trace if pair is not None else (),
        note=note,
    )
    layout.rects.update(rects)
    first, *others = rects.values()
    shown = first.unionall(others).clip(surface.get_rect())
    return Drawn(layout=layout, shown=shown, pair=pair)
