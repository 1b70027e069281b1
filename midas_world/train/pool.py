"""A pool of sequences that go on with the model's own frames, one train step after another.

Each begins at a random place of the teacher's episodes, now and then with parts of its context
lost or noisy, and then walks on beside the teacher: the model's frame is its next context, the
teacher's frame the target, until it is begun anew (Self Forcing, arXiv 2506.08009, with the loss on
single frames). So the model meets its own errors and learns the way back. A model that draws what
chance brings is told it by the noised target, most of the time: so its frames stay beside the
teacher's.

Shapes: B sequences, c latent channels, h w fine grid, F frames that the backbone sees, N tokens of
C channels, O things, K classes, J entry codes, S crop size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midas_world.config import DynamicsTrainConfig, WorldConfig
from midas_world.model.autoencoder import to_tokens
from midas_world.model.conditions import Conditions
from midas_world.train.boxes import place_weights
from midas_world.train.data import crop_corners
from midas_world.train.latents import LatentStore

# A rollout of an untrained model may run away: beyond this it is not gone on with.
MOST_LATENT = 30.0
_EVENT_LEAD = 9
# Steps for which the place of a thing that is gone still has a thing's weight.
_GONE_FOR = 8


def rate_at(points: tuple[tuple[float, float], ...], progress: float) -> float:
    """Return the rate at a progress in [0, 1], on straight lines between points."""
    at, rates = zip(*points, strict=True)
    return float(np.interp(progress, at, rates))


class Pool:
    """The sequences of one training run.

    Args:
        store: What they walk beside.
        world: Sizes.
        config: Rates and weights.
    """

    def __init__(self, store: LatentStore, world: WorldConfig, config: DynamicsTrainConfig) -> None:
        self.store, self.world, self.config = store, world, config
        size, grid = config.optimizer.batch_size, world.grid
        shape = (size, world.autoencoder.latent_channels, *grid)
        self.rows = torch.full((size,), -1)
        self.last = torch.zeros(shape)
        self.before = torch.zeros(shape)
        self.level = torch.zeros(size)
        self.lost = torch.zeros(size, 1, *grid)
        self.depth = torch.zeros(size, dtype=torch.int64)
        self.present = torch.ones(size, 3, dtype=torch.bool)
        self.words = torch.ones(size, world.conditions.text_length, dtype=torch.bool)
        frames = world.backbone.context_frames
        tokens = (size, frames, world.tokens_per_frame, world.token_channels)
        self.context = torch.zeros(tokens, dtype=torch.float16)
        ends = np.zeros(store.frames.num_frames, bool)
        ends[store.starts[1:] - 1] = True
        begins = np.zeros_like(ends)
        begins[store.starts[:-1]] = True
        self._is_end = ends
        self._can_begin = np.flatnonzero(~ends & ~begins)
        self._events = self._find_events()

    def state(self) -> dict[str, Tensor]:
        """Return all that goes on from train step to train step."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly from what `state` gave."""
        for name, value in state.items():
            getattr(self, name).copy_(value)

    def batch(self, generator: torch.Generator, progress: float) -> dict[str, Any]:
        """Begin sequences anew where it is time, and return what the next frames are made of."""
        rng = np.random.default_rng(torch.randint(2**31, (4,), generator=generator).numpy())
        fresh_rate = rate_at(self.config.fresh_rate, progress)
        for slot, row in enumerate(self.rows.tolist()):
            is_over = row < 0 or self._is_end[row]
            if is_over or rng.random() < fresh_rate:
                self._begin(slot, rng, progress)
            elif rng.random() < self.config.forget_rate:
                frames = self.last[slot], self.before[slot]
                self.last[slot], self.before[slot] = self._lose(slot, *frames, rng)
        store, world = self.store, self.world
        rows = self.rows.numpy()
        targets = rows + 1
        window = targets[:, None] - np.arange(world.backbone.context_frames)[::-1]
        first = store.starts[np.searchsorted(store.starts, rows, side="right") - 1]
        # Before an episode's second frame there is none: the second stands in.
        window = np.maximum(window, first[:, None] + 1)
        conditions = self._conditions(window)
        corners, crops = self._crops(targets, rng)
        previous = torch.from_numpy(rows)
        pose = store.conditions.pose[0, previous]
        camera = torch.zeros(len(rows))
        if world.conditions.camera.is_declared:
            camera = pose[:, world.conditions.camera.index] * world.conditions.camera.loop
            camera = camera * self.present[:, 0]
        index = torch.from_numpy(targets)
        return {
            "last": self.last.clone(),
            "before": self.before.clone(),
            "level": self.level.clone(),
            "lost": self.lost.clone(),
            "last_camera": camera,
            "last_audio": store.conditions.audio[0, previous] * self.present[:, 2:],
            "context": self.context.float(),
            "conditions": conditions,
            "target": store.gather(targets),
            "weight": self._weight(targets),
            "corners": torch.from_numpy(corners),
            "crops": crops,
            "reward": store.reward[index],
            "cost": store.cost[index],
            "terminated": store.terminated[index],
            "gone": store.gone[index],
            "coming": store.coming[torch.from_numpy(window)],
            "is_fresh": self.depth == 0,
            "is_whole": ~self.lost.flatten(1).any(dim=1),
        }

    def advance(self, made: Tensor) -> None:
        """Let every sequence go on with the frames made, (B, c, h, w)."""
        made = made.detach().float().cpu()
        was_lost = self.lost.amax(dim=(1, 2, 3), keepdim=True) > 0
        # What was lost is lost in the frame before, too.
        self.before.copy_(torch.where(was_lost, made, self.last))
        self.last.copy_(made)
        self.rows += 1
        self.depth += 1
        self.level.zero_()
        self.lost.zero_()
        tokens = to_tokens(made, self.world.token_block)
        self.context = torch.cat((self.context[:, 1:], tokens[:, None].half()), dim=1)
        is_wild = ~(made.abs().amax(dim=(1, 2, 3)) < MOST_LATENT)
        self.rows[is_wild] = -1

    def _begin(self, slot: int, rng: np.random.Generator, progress: float) -> None:
        """Put a sequence at a random place of the teacher's."""
        store, config = self.store, self.config
        row = int(rng.choice(self._can_begin))
        if self._events and rng.random() < config.event_rate:
            events = self._events[rng.integers(len(self._events))]
            lead = int(rng.integers(1, _EVENT_LEAD + 1))
            place = int(rng.choice(events)) - lead
            first = store.starts[np.searchsorted(store.starts, place + lead, side="right") - 1]
            place = max(place, int(first) + 1)
            row = row if self._is_end[place] else place
        first = int(store.starts[np.searchsorted(store.starts, row, side="right") - 1])
        frames = self.context.shape[1]
        rows = np.maximum(row - np.arange(frames)[::-1], first)
        latents = store.gather(rows)
        last, before = latents[-1], latents[-2] if frames > 1 else latents[-1]
        self.context[slot] = to_tokens(latents, self.world.token_block).half()
        self.rows[slot], self.depth[slot] = row, 0
        self.lost[slot], self.level[slot] = 0.0, 0.0
        layout = self.world.conditions
        self.present[slot] = torch.from_numpy(rng.random(3) >= layout.drop_rate)
        share = layout.word_drop_rate * rng.random()
        self.words[slot] = torch.from_numpy(rng.random(layout.text_length) >= share)
        if rng.random() < config.switch_rate:
            last, before = self._switch(slot, rng)
        elif rng.random() < rate_at(config.lost_rate, progress):
            last, before = self._lose(slot, last, before, rng)
        elif rng.random() < config.noisy_rate:
            level = float(self.world.context_noise * rng.random())
            noise = torch.from_numpy(rng.standard_normal((2, *last.shape), np.float32))
            last, before = last + level * noise[0], before + level * noise[1]
            self.level[slot] = level
        self.last[slot], self.before[slot] = last, before

    def _switch(self, slot: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the last frames of another scene, as if the words had just changed."""
        other = int(rng.choice(self._can_begin))
        latents = self.store.gather(np.array([other - 1, other]))
        tokens = to_tokens(latents, self.world.token_block).half()
        self.context[slot, :-1], self.context[slot, -1] = tokens[0], tokens[1]
        return latents[1], latents[0]

    def _lose(
        self, slot: int, last: Tensor, before: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the frames with a band of columns lost: noise, or the smear of its edge."""
        columns = last.shape[2]
        width = int(rng.integers(max(1, columns // 7), columns + 1))
        is_left, is_smeared = rng.random() < 0.5, rng.random() < 0.5 and width < 0.9 * columns
        start = 0 if is_left else columns - width
        band = slice(start, start + width)
        made = []
        for frame in (last, before):
            lossy = frame.clone()
            if is_smeared:
                edge = width if is_left else start - 1
                lossy[:, :, band] = frame[:, :, edge : edge + 1]
            else:
                noise = rng.standard_normal(lossy[:, :, band].shape, np.float32)
                lossy[:, :, band] = torch.from_numpy(noise)
            made.append(lossy)
        self.lost[slot, :, :, band] = 1.0
        return made[0], made[1]

    def _things(self, row: int) -> np.ndarray:
        """Return the things listed in a row, (O', 6)."""
        listed = self.store.frames.things[row]
        return listed[listed[:, 0] >= 0]

    def _conditions(self, window: np.ndarray) -> Conditions:
        """Return the conditions of rows (B, F), with what the sequences do without."""
        rows = torch.from_numpy(window)
        given = self.store.conditions.map(lambda tensor: tensor[0, rows])
        return Conditions(
            pose=given.pose,
            text=given.text * self.words[:, None],
            audio=given.audio,
            present=given.present & self.present[:, None],
            entries=given.entries,
            tally=given.tally,
        )

    def _weight(self, targets: np.ndarray) -> Tensor:
        """Return the weight of every place, (B, 1, h, w)."""
        store, config, grid = self.store.frames, self.config, self.world.grid
        weights = [place_weights(store, t, config, grid, more=self._gone(t)) for t in targets]
        return torch.from_numpy(np.stack(weights))[:, None]

    def _gone(self, row: int) -> list[np.ndarray]:
        """Return the boxes, (4,) each, where things were that are no more: coins just collected."""
        first = self.store.starts[np.searchsorted(self.store.starts, row, side="right") - 1]
        boxes = {}
        for earlier in range(max(int(first), row - _GONE_FOR), row):
            for thing in self._things(earlier):
                boxes[thing[5]] = thing[1:5] - (self._travel(earlier, row), 0.0, 0.0, 0.0)
        for thing in self._things(row):
            boxes.pop(thing[5], None)
        return list(boxes.values())

    def _travel(self, row: int, later: int) -> float:
        """Return how far the camera went between two rows, px."""
        camera = self.world.conditions.camera
        if not camera.is_declared:
            return 0.0
        places = self.store.conditions.pose[0, [row, later], camera.index] * camera.loop
        return float(camera.travel(*places))

    def _crops(self, targets: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
        """Return the corners of crops, (B, 2) in fine latents, and their pixels (B, S, S, 3)."""
        world, frames, size = self.world, self.store.frames, self.config.crop_size
        step = world.autoencoder.downsampling
        regions = frames.regions[targets]
        listed = np.zeros((*regions.shape[:2], 6), np.float32)
        listed[..., 0] = np.where(regions[..., 2] > 0, 0, -1)
        listed[..., 1:5] = regions
        corners = crop_corners(
            frames.keypoints[targets],
            np.concatenate((frames.things[targets], listed), axis=1),
            frame_size=(world.height, world.width),
            crop_size=size,
            character_rate=0.35,
            thing_rate=0.45,
            rng=rng,
            step=step,
        )
        pixels = frames.gather(targets)
        crops = [
            frame[y : y + size, x : x + size] for frame, (y, x) in zip(pixels, corners, strict=True)
        ]
        return corners // step, torch.from_numpy(np.stack(crops))

    def _find_events(self) -> list[np.ndarray]:
        """Return rows at which something happens: things that enter, rewards, hits, by kind."""
        store = self.store
        events = [store.reward.numpy() != 0, store.cost.numpy() != 0]
        things, middle = store.frames.things, self.world.width / 2
        for kind in range(self.world.entries.num_classes):
            is_near = np.abs(things[..., 1] - middle) <= middle + self.world.entries.outside
            comes = (is_near & (things[..., 0] == kind)).sum(axis=1)
            events.append(comes > np.concatenate(([0], comes[:-1])))
        for region in range(store.frames.regions.shape[1]):
            there = store.frames.regions[:, region, 2] > 0
            events.append(there & ~np.concatenate(([True], there[:-1])))
        begins = np.isin(np.arange(len(store.reward)), store.starts[:-1])
        found = [np.flatnonzero(event & ~begins) for event in events]
        return [rows for rows in found if len(rows)]
