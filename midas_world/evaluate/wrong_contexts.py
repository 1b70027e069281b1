"""Contexts that a world was never trained on, made of real ones.

Shapes: R windows, F frames of context, H W pixels, N tokens per frame, C latent channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from midas_world.conditions import Conditions

_GRAIN = 32.0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Full contexts from real episodes, and the conditions that go with them.

    Attributes:
        run: (R,) index of the episode that each comes from.
        texts: The R texts of the frames that are predicted.
        frames: (R, F, H, W, 3) uint8.
        latents: (R, F, N, C) of these frames.
        conditions: (R, F, ...), each of the frame after: of what is predicted.
    """

    run: np.ndarray
    texts: tuple[str | None, ...]
    frames: np.ndarray
    latents: Tensor
    conditions: Conditions

    @property
    def partners(self) -> np.ndarray | None:
        """For each window one of another episode with another text; None if one has no such."""
        count = len(self.run)
        chosen = []
        for row in range(count):
            others = [(row + shift) % count for shift in range(1, count)]
            fits = (
                other
                for other in others
                if self.run[other] != self.run[row] and self.texts[other] != self.texts[row]
            )
            chosen.append(next(fits, None))
        return None if None in chosen else np.array(chosen)


def wrong_contexts(
    windows: Windows, *, encode: Callable[[np.ndarray], Tensor], rng: np.random.Generator
) -> Iterator[tuple[str, Windows]]:
    """Yield each way of making the contexts wrong, with its name.

    Args:
        windows: Real ones.
        encode: From frames (B, H, W, 3) uint8 to latents (B, N, C).
        rng: Of noise, order and colours.
    """
    count, length = windows.latents.shape[:2]

    def seen(frames: np.ndarray) -> Windows:
        latents = encode(frames.reshape(-1, *frames.shape[2:]))
        return replace(windows, frames=frames, latents=latents.unflatten(0, frames.shape[:2]))

    partners = windows.partners
    if partners is not None:
        other = torch.from_numpy(partners)
        theirs = windows.conditions
        text = replace(windows.conditions, text=theirs.text[other])
        yield "words of another scene", replace(windows, conditions=text)
        conditions = Conditions(
            pose=theirs.pose[other],
            text=theirs.text[other],
            audio=theirs.audio[other],
            present=theirs.present[other],
        )
        yield "pose, words and sound of another episode", replace(windows, conditions=conditions)
        in_turn = windows.latents.clone()
        # The last frame stays right: what is wrong is only that the picture flickers.
        places = list(range(length - 2, -1, -2))
        in_turn[:, places] = windows.latents[other][:, places]
        yield "frames of two scenes in turn", replace(windows, latents=in_turn)
    orders = np.stack([rng.permutation(length) for _ in range(count)])
    shuffled = torch.stack([windows.latents[row][orders[row]] for row in range(count)])
    yield "frames in random order", replace(windows, latents=shuffled)
    grain = rng.normal(0.0, _GRAIN, windows.frames.shape).astype(np.float32)
    grainy = (windows.frames + grain).clip(0, 255).astype(np.uint8)
    yield f"frames with noise of {_GRAIN:g} levels", seen(grainy)
    yield "frames upside down", seen(np.ascontiguousarray(windows.frames[:, :, ::-1]))
    noise = rng.integers(0, 256, windows.frames.shape, dtype=np.uint8)
    yield "nothing but noise", seen(noise)
    plaid = np.stack([plaid_frame(*windows.frames.shape[2:4], rng=rng) for _ in range(count)])
    still = encode(plaid)[:, None].expand(-1, length, -1, -1)
    yield "a foreign picture, a plaid", replace(windows, latents=still)


def plaid_frame(height: int, width: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return a woven pattern of random colours and stripes, (H, W, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.zeros((height, width, 3))
    for channel in range(3):
        across, down = rng.uniform(8.0, 40.0, 2)
        phase = rng.uniform(0.0, 2 * np.pi, 2)
        waves = np.sin(columns / across * 2 * np.pi + phase[0])
        frame[..., channel] = waves + np.sin(rows / down * 2 * np.pi + phase[1])
    return ((frame + 2.0) / 4.0 * 255.0).astype(np.uint8)
