"""The rolling KV cache: a preallocated ring of the last ``context_frames`` frames.

Six verbs: write, mask, commit, reset, replacing, clone. Keys are kept rotated by their absolute
position; the angles come from float64, so the cost and the answer at step 1,000,000 are those at
step 1,000. Beside them lies what the head wants of the frames before: latents, the camera's place
and the sound.

Shapes: B batch, T positions per frame (condition tokens + latent tokens), ring slots of T rows,
N latent tokens, C their channels, A audio size.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from midas_world.config import BackboneConfig


class KVCache:
    """Keys and values of the frames that attention may look back to.

    Attributes:
        keys: (layers, B, kv_heads, context_frames * T, head_dim), rotated.
        values: The same shape.
        frames_held: (B,) int64: how many frames each row has seen, at most ``context_frames``.
        before: (B, N, C) float32 latents of the frame before the last.
        camera: (B,) float32 px, the camera's place at the last frame.
        audio: (B, A) float32 of the last frame.
        num_committed: Frames committed since construction; places the next one in the ring.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        batch_size: int,
        positions_per_frame: int,
        dtype: torch.dtype,
        device: torch.device,
        token_shape: tuple[int, int] = (0, 0),
        audio_size: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.config = config
        self.positions_per_frame = positions_per_frame
        shape = (
            config.num_layers,
            batch_size,
            config.num_kv_heads,
            config.context_frames * positions_per_frame,
            config.head_dim,
        )
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.frames_held = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.before = torch.zeros((batch_size, *token_shape), device=device)
        self.camera = torch.zeros(batch_size, device=device)
        self.audio = torch.zeros(batch_size, audio_size, device=device)
        self.num_committed = 0
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=device)
        self._frequencies = config.rope_theta ** -(half / config.head_dim)
        self._offsets = torch.arange(positions_per_frame, dtype=torch.float64, device=device)
        self._slots = torch.arange(config.context_frames, device=device)

    @property
    def slot(self) -> int:
        """Ring slot of the present frame."""
        return self.num_committed % self.config.context_frames

    def rope(self) -> tuple[Tensor, Tensor]:
        """Return cosine and sine for the present frame, each (T, head_dim), float32."""
        positions = self._offsets + float(self.num_committed * self.positions_per_frame)
        angles = positions[:, None] * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().float(), angles.sin().float()

    def mask(self) -> Tensor:
        """Return which cached rows the present frame sees, (B, 1, 1, context_frames * T) bool."""
        age = (self.slot - self._slots) % self.config.context_frames
        seen = age[None] <= self.frames_held[:, None]
        return seen.repeat_interleave(self.positions_per_frame, dim=1)[:, None, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Change the present frame's slot of a layer and return all its keys and values.

        Args:
            layer: Index of the layer.
            keys: (B, kv_heads, T, head_dim), rotated.
            values: The same shape.
        """
        start = self.slot * self.positions_per_frame
        rows = slice(start, start + self.positions_per_frame)
        self.keys[layer, :, :, rows] = keys
        self.values[layer, :, :, rows] = values
        return self.keys[layer], self.values[layer]

    def commit(self) -> None:
        """Make the present frame part of the past; the next write goes to the next slot."""
        self.num_committed += 1
        self.frames_held.add_(1).clamp_(max=self.config.context_frames - 1)

    def reset(self, rows: Tensor | None = None) -> None:
        """Forget the past of some rows, (B,) bool, or of all."""
        if rows is None:
            self.frames_held.zero_()
        else:
            self.frames_held.masked_fill_(rows, 0)

    @contextlib.contextmanager
    def replacing(
        self, rows: Sequence[int], source: "KVCache", *, num_frames: int
    ) -> Iterator[None]:
        """Replace the past of some rows by what is committed to `source` inside of the block.

        Both change: `source` is put in step with this cache first.

        Frames go to the ring slots just before the present one, where those of the other rows lie
        too: a cache of the rows alone starts that many frames earlier and ends in step.

        Args:
            rows: The R rows.
            source: A new cache of R rows.
            num_frames: That will be committed to it.
        """
        source.num_committed = self.num_committed - num_frames
        yield
        assert source.num_committed == self.num_committed, "other frames than said were committed"
        index = torch.tensor(rows, device=self.keys.device)
        self.keys[:, index] = source.keys
        self.values[:, index] = source.values
        self.frames_held[index] = source.frames_held
        self.before[index] = source.before
        self.camera[index] = source.camera
        self.audio[index] = source.audio

    def clone(self) -> "KVCache":
        """Return an independent copy."""
        copy = object.__new__(KVCache)
        copy.__dict__.update(self.__dict__)
        copy.keys, copy.values = self.keys.clone(), self.values.clone()
        for name in ("frames_held", "before", "camera", "audio"):
            setattr(copy, name, getattr(self, name).clone())
        return copy
