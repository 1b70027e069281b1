"""The condition encoders: pose, text and audio to instruction tokens, a vector and maps.

The backbone gets an instruction token of each modality, with a learned embedding for "absent". The
head gets what has no place as one vector, and limbs as skeleton maps on the fine grid. The layout
of a pose - keypoints, limbs, camera, clock - is what the teacher declares of it.

Shapes: B batch, F frames, M condition tokens, D width, P pose size, A audio size, J entry codes,
L limbs, h w fine grid, E width of words, V size of the vector, V' of its part about camera and
clock.
"""

import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.config import ConditionsConfig
from midas_world.model.layers import mlp
from midas_world.model.motion import snap
from midas_world.model.skeleton_maps import WAVES_PER_LIMB, limb_fields, limb_waves
from midas_world.tokenizing import token_ids
from midas_world.types import LONGEST_SINCE_HIT, StepConditions, stack_vectors

POSE, TEXT, AUDIO = range(3)

# Of who has all lives and was not hit.
FULL_TALLY = (1.0, float(LONGEST_SINCE_HIT))
_TALLY_SIZE = 3

# Multiples of the clock's frequency that the head is told.
_HARMONICS = (1, 2, 4)

# Pairs with these say no more than the other word alone.
FILLER_WORDS = frozenset(
    ("a", "an", "and", "are", "at", "by", "for", "in", "is", "it", "of", "on", "the", "to", "with")
)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of B sequences of F frames.

    Attributes:
        pose: (B, F, P) float32.
        text: (B, F, L) int64 hashed words and word pairs; 0 fills up.
        audio: (B, F, A) float32.
        present: (B, F, 3) bool: whether pose, text and audio are given.
        entries: (B, F, J, 2) float32 codes of the things in view: class (-1: none) and px from
            the middle of the picture.
        tally: (B, F, 2) float32 share of the lives that are left, and steps since the last hit,
            both before the frame.
    """

    pose: Tensor
    text: Tensor
    audio: Tensor
    present: Tensor
    entries: Tensor
    tally: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """Return the conditions with every tensor changed."""
        return Conditions(**{name: change(tensor) for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> "Conditions":
        """Return the same on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def frames(self, start: int, stop: int | None) -> "Conditions":
        """Return the frames start to stop - 1, or to the last."""
        return self.map(lambda tensor: tensor[:, start:stop])

    def pick(self, rows: Sequence[int]) -> "Conditions":
        """Return a copy of some sequences."""
        at = list(rows)
        return self.map(lambda tensor: tensor[at])

    @staticmethod
    def join(frames: Sequence["Conditions"]) -> "Conditions":
        """Return the conditions of frames one after another."""
        names = [item.name for item in fields(Conditions)]
        return Conditions(**{n: torch.cat([getattr(f, n) for f in frames], dim=1) for n in names})

    def drop(self, rate: float, word_rate: float, generator: torch.Generator) -> "Conditions":
        """Return conditions in which modalities and words are absent at random.

        Args:
            rate: Chance of each modality of each sequence.
            word_rate: Most words left out of a sequence's texts; the share is drawn per sequence,
                so that the model learns to keep from the context what the words do not say.
            generator: On the CPU.
        """
        batch, device = self.present.shape[0], self.present.device
        keep = torch.rand(batch, 1, 3, generator=generator) >= rate
        share = word_rate * torch.rand(batch, 1, 1, generator=generator)
        words = torch.rand(batch, 1, self.text.shape[-1], generator=generator) >= share
        return replace(
            self, present=self.present & keep.to(device), text=self.text * words.to(device)
        )


@lru_cache(maxsize=4096)
def _hash_text(text: str, length: int, buckets: int, tokenizer: str) -> tuple[int, ...]:
    if tokenizer:
        tokens = [1 + token for token in token_ids(text, tokenizer)[:length]]
        if max(tokens, default=0) >= buckets:
            raise ValueError(
                f"text_buckets must be more than the tokenizer's tokens, got {buckets}"
            )
        return tuple(tokens + [0] * (length - len(tokens)))
    words = re.findall(r"[\w']+", text.lower())
    pairs = [f"{a} {b}" for a, b in pairwise(words) if not {a, b} & FILLER_WORDS]
    grams = words + pairs
    ids = [1 + zlib.crc32(gram.encode()) % (buckets - 1) for gram in grams][:length]
    return tuple(ids + [0] * (length - len(ids)))


def hash_text(text: str, config: ConditionsConfig) -> np.ndarray:
    """Return the hashed words, then word pairs, of a text: (L,) int64, filled up with 0.

    With a tokenizer they are its tokens, each one more than it is there.
    """
    ids = _hash_text(text, config.text_length, config.text_buckets, config.tokenizer)
    return np.asarray(ids, np.int64)


def stack_conditions(
    steps: Sequence[StepConditions], config: ConditionsConfig, *, capacity: int
) -> Conditions:
    """Return the conditions of B games at one step as tensors of one frame (B, 1, ...).

    Args:
        steps: One per game.
        config: Their layout.
        capacity: J; no entry codes are in them, and nobody was hit.

    Raises:
        ValueError: A pose or audio vector has another size than the config says.
    """
    blank, count = np.zeros(config.text_length, np.int64), len(steps)
    text = [blank if step.text is None else hash_text(step.text, config) for step in steps]
    present = [[value is not None for value in (s.pose, s.text, s.audio)] for s in steps]
    return Conditions(
        pose=torch.from_numpy(stack_vectors(steps, "pose", config.pose_size))[:, None],
        text=torch.from_numpy(np.stack(text))[:, None],
        audio=torch.from_numpy(stack_vectors(steps, "audio", config.audio_size))[:, None],
        present=torch.from_numpy(np.array(present))[:, None],
        entries=torch.full((count, 1, capacity, 2), -1.0),
        tally=torch.tensor(FULL_TALLY).repeat(count, 1, 1),
    )


class Cues(NamedTuple):
    """What the conditions of one frame say, told apart.

    Attributes:
        words: (B, E) mean embedding of the words, 0 where there are none.
        camera: (B,) px within its loop; 0 without one.
        clock: (B,) share of its period.
        phases: (B, V') sines and cosines of where each layer of the scenery stands within its fine
            latents, and of the clock.
    """

    words: Tensor
    camera: Tensor
    clock: Tensor
    phases: Tensor


def with_hits(conditions: Conditions, hits: Tensor, *, lives: int) -> Conditions:
    """Return conditions of one frame (B, 1, ...) whose tally counts hits in it, (B,) bool.

    So a hit is seen in the very frame; `lives` is how many a game has at first, 0 if none count.
    """
    share, since = conditions.tally.unbind(dim=-1)
    less = (share - 1.0 / lives).clamp_min(0.0) if lives else share
    tally = torch.stack((less, torch.zeros_like(since)), dim=-1)
    return replace(conditions, tally=torch.where(hits[:, None, None], tally, conditions.tally))


def tally_of(conditions: Conditions) -> Tensor:
    """Return what networks are told of the first frame's tally, (B, 3), each in [0, 1]."""
    share, since = conditions.tally[:, 0].unbind(dim=1)
    return torch.stack((share, (since / 32.0).clamp(max=1.0), (-since / 4.0).exp()), dim=1)


class ConditionEncoder(nn.Module):
    """Encode conditions to M instruction tokens, to the head's vector and to skeleton maps.

    Args:
        config: Layout and sizes.
        width: D of the tokens.
        grid: (h, w) of the fine latent grid.
        frame_size: (H, W).
        parallax: Of the scenery that moves with the camera.
    """

    limbs: Tensor
    scalars: Tensor
    parallax: Tensor
    points: Tensor
    middle: Tensor

    def __init__(
        self,
        config: ConditionsConfig,
        *,
        width: int,
        grid: tuple[int, int],
        frame_size: tuple[int, int],
        parallax: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.config, self.grid, self.frame_size = config, grid, frame_size
        hidden = config.word_width
        self.pose = mlp(max(1, config.pose_size), 4 * hidden, width)
        self.words = nn.EmbeddingBag(config.text_buckets, hidden, mode="mean", padding_idx=0)
        self.text = mlp(hidden, 4 * hidden, width)
        self.audio = mlp(max(1, config.audio_size), 4 * hidden, width)
        self.absent = nn.Parameter(0.02 * torch.randn(3, width))
        self.kind = nn.Parameter(0.02 * torch.randn(3, width))
        limbs = torch.tensor(config.limbs, dtype=torch.int64).view(-1, 2)
        # Buffers: tensors made of numbers would stop a GPU.
        self.register_buffer("limbs", limbs, persistent=False)
        self.register_buffer("scalars", torch.tensor(config.scalars).long(), persistent=False)
        self.register_buffer("parallax", torch.tensor(parallax), persistent=False)
        y, x = torch.meshgrid(
            *(
                (torch.arange(cells) + 0.5) * size / cells - 0.5
                for cells, size in zip(grid, frame_size, strict=True)
            ),
            indexing="ij",
        )
        self.register_buffer("points", torch.stack((x, y)).flatten(1), persistent=False)
        height, width_px = frame_size
        self.register_buffer("middle", torch.tensor((width_px / 2, height / 2)), persistent=False)

    @property
    def vector_size(self) -> int:
        """V."""
        config = self.config
        others = len(config.scalars) + 2 * config.audio_size + 3 + _TALLY_SIZE
        return config.word_width + others + self.phase_size

    @property
    def phase_size(self) -> int:
        """V'."""
        clock = 2 * len(_HARMONICS) if self.config.clock.is_declared else 0
        return 4 * len(self.parallax) + clock

    @property
    def map_channels(self) -> int:
        """Channels of `maps`."""
        return 4 * len(self.config.limbs)

    @property
    def wave_channels(self) -> int:
        """Channels of `waves`."""
        return WAVES_PER_LIMB * len(self.config.limbs)

    def tokens(self, conditions: Conditions) -> Tensor:
        """Return the instruction tokens, (B, F, M, D)."""
        pose, audio = self._given(conditions)
        if not self.config.pose_size:
            pose = pose.new_zeros(*pose.shape[:-1], 1)
        if not self.config.audio_size:
            audio = audio.new_zeros(*audio.shape[:-1], 1)
        words = self._words(conditions.text, conditions.present)
        tokens = torch.stack((self.pose(pose), self.text(words), self.audio(audio)), dim=2)
        present = conditions.present[..., None]
        return torch.where(present, tokens, self.absent.to(tokens.dtype)) + self.kind

    def cues(self, conditions: Conditions) -> Cues:
        """Return what the first frame of conditions says."""
        pose, _ = self._given(conditions)
        config = self.config
        zero = pose.new_zeros(len(pose))
        camera, clock = zero, zero
        parts = [pose.new_zeros(len(pose), 0)]
        if config.camera.is_declared:
            camera = pose[:, 0, config.camera.index] * config.camera.loop
        if len(self.parallax):
            step = self.frame_size[1] / self.grid[1]
            phase = snap(camera[:, None] * self.parallax) * (2 * math.pi / step)
            parts += [f(phase / n) for n in (1, 2) for f in (torch.sin, torch.cos)]
        if config.clock.is_declared:
            clock = pose[:, 0, config.clock.index]
            turn = 2 * math.pi * clock[:, None]
            parts += [f(turn * n) for n in _HARMONICS for f in (torch.sin, torch.cos)]
        return Cues(
            words=self._words(conditions.text, conditions.present)[:, 0],
            camera=camera,
            clock=clock,
            phases=torch.cat(parts, dim=1),
        )

    def vector(self, conditions: Conditions, cues: Cues, last_audio: Tensor) -> Tensor:
        """Return what the head is told that has no place, (B, V).

        Args:
            conditions: Whose first frame is meant.
            cues: Of them.
            last_audio: (B, A) of the frame before.
        """
        pose, audio = self._given(conditions)
        parts = [cues.words, pose[:, 0, self.scalars], audio[:, 0], last_audio]
        parts += [conditions.present[:, 0].to(pose.dtype), cues.phases, tally_of(conditions)]
        return torch.cat([part.to(cues.words.dtype) for part in parts], dim=1)

    def maps(self, conditions: Conditions) -> Tensor:
        """Return the skeleton maps of the first frame, (B, 4 L, h, w)."""
        count = len(self.config.limbs)
        if not count:
            return conditions.pose.new_zeros(len(conditions.pose), 0, *self.grid)
        first, last = self.limbs.unbind(dim=1)
        keypoints, reach = self._keypoints(conditions), self.config.limb_reach
        made = limb_fields(keypoints, self.points, first=first, last=last, reach=reach)
        present = conditions.present[:, 0, POSE, None, None]
        return (made * present).transpose(1, 2).unflatten(2, self.grid)

    def waves(self, conditions: Conditions, points: Tensor) -> Tensor:
        """Return what `limb_waves` says of points (B, 2, S) px in the first frame, (B, S, 16 L)."""
        first, last = self.limbs.unbind(dim=1)
        keypoints, reach = self._keypoints(conditions), self.config.limb_reach
        made = limb_waves(keypoints, points, first=first, last=last, reach=reach)
        return made * conditions.present[:, 0, POSE, None, None]

    def middle_of(self, conditions: Conditions) -> Tensor:
        """Return the middle of the first frame's keypoints, (B, 2) x and y in [0, 1]."""
        count = self.config.num_keypoints
        points = conditions.pose[:, 0, : 2 * count].unflatten(-1, (-1, 2))
        if not count:
            return points.new_full((len(points), 2), 0.5)
        return (points.amin(dim=1) + points.amax(dim=1)) / 4 + 0.5

    def is_shown(self, conditions: Conditions, entry: int | None) -> Tensor | None:
        """Return where the first frame's pose has more than 0.5 at an entry, (B,) bool; or None."""
        if entry is None:
            return None
        return (conditions.pose[:, 0, entry] > 0.5) & conditions.present[:, 0, POSE]

    def _keypoints(self, conditions: Conditions) -> Tensor:
        """Return the first frame's keypoints, (B, K, 2) px."""
        keypoints = conditions.pose[:, 0, : 2 * self.config.num_keypoints]
        return (keypoints.unflatten(-1, (-1, 2)) + 1.0) * self.middle

    def _given(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Return pose and audio, each 0 where it is absent."""
        present = conditions.present
        return (
            conditions.pose * present[..., POSE, None],
            conditions.audio * present[..., AUDIO, None],
        )

    def _words(self, text: Tensor, present: Tensor) -> Tensor:
        """Return the mean word embedding, (B, F, E), 0 where texts are absent."""
        bags = text * present[..., TEXT, None]
        return self.words(bags.flatten(0, 1)).unflatten(0, bags.shape[:2])
