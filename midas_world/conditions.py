"""The condition encoders: pose, text and audio to instruction tokens in the backbone's space.

Each modality has its own encoder and its own learned embedding for "absent". Pose is also told to
every latent token relative to that token's place in the picture, which is what lets a limb move
in the right cell; the text may be, so that scenery need not be asked for by attention. Or a neural
renderer tells each token all that the conditions say of it, and foretells its latents. Knows
nothing of time beyond the one frame.

Shapes: B batch, F frames, M condition tokens, N latent tokens, D width, P pose size, A audio size.
"""

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.conditions_config import ConditionsConfig
from midas_world.layers import mlp
from midas_world.pose_guider import is_near
from midas_world.renderer import NeuralRenderer
from midas_world.types import StepConditions

POSE, TEXT, AUDIO = range(3)

# Cells away that absent keypoints are put.
FAR_CELLS = 100.0

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
    """

    pose: Tensor
    text: Tensor
    audio: Tensor
    present: Tensor

    def to(self, device: torch.device) -> "Conditions":
        """Return the same on another device."""
        return Conditions(
            pose=self.pose.to(device),
            text=self.text.to(device),
            audio=self.audio.to(device),
            present=self.present.to(device),
        )

    def frames(self, start: int, stop: int | None) -> "Conditions":
        """Return the frames start to stop - 1, or to the last."""
        return Conditions(
            pose=self.pose[:, start:stop],
            text=self.text[:, start:stop],
            audio=self.audio[:, start:stop],
            present=self.present[:, start:stop],
        )

    def rows(self, start: int, stop: int) -> "Conditions":
        """Return the sequences start to stop - 1."""
        return Conditions(
            pose=self.pose[start:stop],
            text=self.text[start:stop],
            audio=self.audio[start:stop],
            present=self.present[start:stop],
        )

    def pick(self, rows: Sequence[int]) -> "Conditions":
        """Return a copy of some sequences."""
        at = list(rows)
        return Conditions(
            pose=self.pose[at],
            text=self.text[at],
            audio=self.audio[at],
            present=self.present[at],
        )

    def roll(self) -> "Conditions":
        """Return a copy in which each sequence is the one before it, the first one the last."""
        parts = (self.pose, self.text, self.audio, self.present)
        pose, text, audio, present = (part.roll(1, 0) for part in parts)
        return Conditions(pose=pose, text=text, audio=audio, present=present)

    def paste(self, other: "Conditions", row: int, start: int) -> None:
        """Change a sequence from a frame on to another's conditions there."""
        for own, its in (
            (self.pose, other.pose),
            (self.text, other.text),
            (self.audio, other.audio),
            (self.present, other.present),
        ):
            own[row, start:] = its[row, start:]

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
def _hash_text(text: str, length: int, buckets: int) -> tuple[int, ...]:
    words = re.findall(r"[\w']+", text.lower())
    pairs = [f"{a} {b}" for a, b in pairwise(words) if not {a, b} & FILLER_WORDS]
    grams = words + pairs
    ids = [1 + zlib.crc32(gram.encode()) % (buckets - 1) for gram in grams][:length]
    return tuple(ids + [0] * (length - len(ids)))


def hash_text(text: str, config: ConditionsConfig) -> np.ndarray:
    """Return the hashed words, then word pairs, of a text: (L,) int64, filled up with 0."""
    return np.asarray(_hash_text(text, config.text_length, config.text_buckets), np.int64)


def stack_conditions(steps: Sequence[StepConditions], config: ConditionsConfig) -> Conditions:
    """Return the conditions of B games at one step as tensors of one frame (B, 1, ...).

    Raises:
        ValueError: A pose or audio vector has another size than the config says.
    """
    count = len(steps)
    pose = np.zeros((count, 1, config.pose_size), np.float32)
    text = np.zeros((count, 1, config.text_length), np.int64)
    audio = np.zeros((count, 1, config.audio_size), np.float32)
    present = np.zeros((count, 1, 3), bool)
    for row, step in enumerate(steps):
        if step.pose is not None:
            pose[row, 0] = _sized(step.pose, config.pose_size, "pose")
            present[row, 0, POSE] = True
        if step.text is not None:
            text[row, 0] = hash_text(step.text, config)
            present[row, 0, TEXT] = True
        if step.audio is not None:
            audio[row, 0] = _sized(step.audio, config.audio_size, "audio")
            present[row, 0, AUDIO] = True
    return Conditions(
        pose=torch.from_numpy(pose),
        text=torch.from_numpy(text),
        audio=torch.from_numpy(audio),
        present=torch.from_numpy(present),
    )


def _sized(vector: np.ndarray, size: int, name: str) -> np.ndarray:
    if vector.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {vector.shape}")
    return vector


class ConditionEncoder(nn.Module):
    """Encode conditions to M instruction tokens and to an addition for every latent token.

    Args:
        config: Sizes.
        width: D of the tokens.
        grid: (h, w) of the latent grid.
        latent_channels: C, of the latents that a renderer foretells.
    """

    offsets: Tensor
    scale: Tensor

    def __init__(
        self,
        config: ConditionsConfig,
        *,
        width: int,
        grid: tuple[int, int],
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        hidden = config.encoder_width
        self.pose = mlp(max(1, config.pose_size), hidden, width)
        self.words = nn.EmbeddingBag(config.text_buckets, hidden, mode="mean", padding_idx=0)
        self.text = mlp(hidden, hidden, width)
        self.audio = mlp(max(1, config.audio_size), hidden, width)
        self.absent = nn.Parameter(0.02 * torch.randn(3, width))
        self.kind = nn.Parameter(0.02 * torch.randn(3, width))
        num_relative = 2 * config.num_keypoints * (1 + 2 * config.keypoint_octaves)
        num_local = config.pose_size + 1 + num_relative
        rows, columns = grid
        self.renderer = self.local_pose = self.local_text = None
        if config.renderer_width:
            self.renderer = NeuralRenderer(
                config,
                num_words=hidden,
                num_local=num_local,
                grid=grid,
                latent_channels=latent_channels,
            )
            self.local = nn.Linear(config.renderer_width, width)
        else:
            self.local_pose = mlp(num_local, hidden, width)
            if config.local_text:
                self.local_text = nn.Linear(hidden, width, bias=False)
                nn.init.zeros_(self.local_text.weight)
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) / rows * 2 - 1,
            (torch.arange(columns) + 0.5) / columns * 2 - 1,
            indexing="ij",
        )
        # Cell centres in keypoint coordinates, and the scale that makes one cell about 1.
        self.register_buffer("offsets", torch.stack((x, y), -1).flatten(0, 1), persistent=False)
        # A buffer: a tensor made of numbers would stop a GPU, and be refused by CUDA graphs.
        self.register_buffer("scale", torch.tensor((columns / 2, rows / 2)), persistent=False)

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return condition tokens, additions for latent tokens, and what is foretold of them.

        The shapes are (B, F, M, D), (B, F, N, D) and (B, F, N, C); without a renderer, nothing is
        foretold (None).
        """
        present = conditions.present
        pose, audio, words = self._inputs(conditions)
        tokens = torch.stack((self.pose(pose), self.text(words), self.audio(audio)), dim=2)
        tokens = torch.where(present[..., None], tokens, self.absent.to(tokens.dtype)) + self.kind
        if self.renderer is not None:
            features, foretold = self._render(conditions, pose, words, audio)
            return tokens, self.local(features), foretold
        assert self.local_pose is not None
        local = self.local_pose(self._local_features(conditions))
        if self.local_text is not None:
            # Absent texts are empty bags, which are zero.
            local = local + self.local_text(words)[:, :, None]
        return tokens, local, None

    def foretell(self, conditions: Conditions) -> Tensor:
        """Return the latents of frames as far as conditions tell, (B, F, N, C).

        Raises:
            ValueError: There is no renderer.
        """
        if self.renderer is None:
            raise ValueError("without a renderer (conditions.renderer_width) nothing is foretold")
        pose, audio, words = self._inputs(conditions)
        return self._render(conditions, pose, words, audio)[1]

    def freeze_renderer(self) -> None:
        """Stop the learning of the renderer, if there is one, and of the words that it reads."""
        if self.renderer is not None:
            self.renderer.requires_grad_(requires_grad=False)
            self.words.requires_grad_(requires_grad=False)

    def _render(
        self, conditions: Conditions, pose: Tensor, words: Tensor, audio: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the renderer's features and foretold latents; the rest is of `_inputs`."""
        assert self.renderer is not None
        absent = ~conditions.present[..., POSE, None, None, None]
        keypoints = self._from_centres(conditions.pose) + FAR_CELLS * absent
        return self.renderer(pose, words, audio, self._local_features(conditions), keypoints)

    def _inputs(self, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor]:
        """Return pose, audio and mean word embedding, each 0 where it is absent."""
        present = conditions.present
        pose = conditions.pose * present[..., POSE, None]
        audio = conditions.audio * present[..., AUDIO, None]
        if not self.config.pose_size:
            pose = pose.new_zeros(*pose.shape[:-1], 1)
        if not self.config.audio_size:
            audio = audio.new_zeros(*audio.shape[:-1], 1)
        bags = conditions.text * present[..., TEXT, None]
        words = self.words(bags.flatten(0, 1)).unflatten(0, bags.shape[:2])
        return pose, audio, words

    def camera_phase(self, conditions: Conditions) -> Tensor:
        """Return the last two entries of poses, (B, F, 2) float32; 0 where they are absent."""
        pose, present = conditions.pose, conditions.present[..., POSE, None]
        if self.config.pose_size < 2:
            return pose.new_zeros(*pose.shape[:-1], 2)
        return (pose[..., -2:] * present).float()

    def near_keypoints(self, conditions: Conditions) -> Tensor:
        """Return which cells hold a keypoint, or have one within a tenth of a cell: (B, F, N)."""
        present = conditions.present[..., POSE, None]
        near = self._from_centres(conditions.pose).abs().amax(dim=-1) < 0.6
        return near.any(dim=-1) & present

    def limb_maps(self, conditions: Conditions) -> Tensor:
        """Return how near each point of each cell is to the nearest limb, (B, F, N, S), 0 to 1.

        Raises:
            ValueError: There is no pose guider.
        """
        if self.renderer is None or self.renderer.guider is None:
            raise ValueError("without a pose guider (conditions.limbs) there are no maps of limbs")
        keypoints = self._from_centres(conditions.pose)
        where = (is_near(keypoints) & conditions.present[..., POSE, None]).nonzero(as_tuple=True)
        maps = self.renderer.guider.maps(keypoints[where]).amax(dim=-1)
        return maps.new_zeros(*keypoints.shape[:3], maps.shape[-1]).index_put(where, maps)

    def _from_centres(self, pose: Tensor) -> Tensor:
        """Return where keypoints lie from the cells' centres, in cells, (B, F, N, K, 2)."""
        count = self.config.num_keypoints
        keypoints = pose[..., : 2 * count].unflatten(-1, (count, 2))
        return (keypoints[:, :, None] - self.offsets[:, None]) * self.scale.to(keypoints.dtype)

    def _local_features(self, conditions: Conditions) -> Tensor:
        """Return the pose and, per latent token, its keypoints relative to the cell's centre."""
        present = conditions.present[..., POSE, None].to(conditions.pose.dtype)
        pose = conditions.pose * present
        relative = self._from_centres(pose)
        # Far keypoints say little: the clamp keeps their features small.
        relative = relative.clamp(-2.0, 2.0)
        waves = [relative * (math.pi * 2**octave) for octave in range(self.config.keypoint_octaves)]
        parts = [relative, *(f(wave) for wave in waves for f in (torch.sin, torch.cos))]
        relative = torch.cat([(part * present[..., None, None]).flatten(-2) for part in parts], -1)
        spread = torch.cat((pose, present), dim=-1)[:, :, None].expand(
            -1, -1, len(self.offsets), -1
        )
        return torch.cat((spread, relative), dim=-1)
