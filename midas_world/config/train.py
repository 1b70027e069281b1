"""Configs of training: the optimizer, the stages, and the data they learn from."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and Muon with warm-up and cosine decay, gradient clipping, an average of the weights.

    Attributes:
        learning_rate: Peak of AdamW.
        muon_learning_rate: Peak of Muon, for the weights inside the network; 0: AdamW has all.
        table_learning_rate: Peak of AdamW for tables that are looked up; 0: as the rest.
        final_learning_rate: Share of the peak at the last train step.
    """

    learning_rate: float
    muon_learning_rate: float = 0.0
    table_learning_rate: float = 0.0
    train_steps: int
    batch_size: int
    warmup_steps: int = 200
    final_learning_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998
    bf16: bool = True

    def __post_init__(self) -> None:
        """Check the counts."""
        for name in ("train_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainConfig:
    """The first stage of training.

    Attributes:
        freeze_encoder_after: Train step from which only the decoder learns, so that the second
            stage can start on latents that no longer change; -1: never.
        crop_size: Side of the square that is learned from each frame, px; 0: the whole frame.
        character_rate: Share of crops around a keypoint.
        thing_rate: Share of crops around a thing that the teacher lists.
        squared_weight: Weight of the squared error beside the absolute one.
        gradient_weight: Weight of the L1 loss on the picture's gradients.
        character_weight: Extra weight of pixels near the character's keypoints.
        num_validation: Held-out frames for each evaluation.
    """

    optimizer: OptimizerConfig
    freeze_encoder_after: int = -1
    crop_size: int = 0
    character_rate: float = 0.25
    thing_rate: float = 0.35
    squared_weight: float = 2.0
    gradient_weight: float = 0.5
    character_weight: float = 2.0
    num_validation: int = 64
    evaluate_every: int = 500
    save_every: int = 200


@dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """Where the character has what is small and looked at most.

    Attributes:
        keypoint: Its middle.
        radius: px.
        weight: Of the error there, for windows that follow keypoints (train/windows.py).
    """

    keypoint: int
    radius: float
    weight: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.keypoint < 0 or not 0.0 < self.radius < 1e4 or not 0.0 <= self.weight < 1e4:
            raise ValueError(
                "face must have a keypoint from 0 on, a radius above 0 and a weight from 0 on, got "
                f"{self.keypoint}, {self.radius} and {self.weight}"
            )


@dataclass(frozen=True, kw_only=True)
class DynamicsTrainConfig:
    """The second stage of training; rates are points (progress, rate) joined by straight lines.

    A batch is a pool of sequences. At each train step every sequence makes one frame and goes on
    with its own; at a rate it begins anew from the teacher's frames instead.

    Attributes:
        fresh_rate: Share of sequences that begin anew. From 1 on down: single steps first, then
            longer and longer rollouts.
        drawn_rate: Share of sequences that, at each step, go on with a frame drawn from noise
            alone; the others' is predicted from the noised next frame. Of no effect on means.
        switch_rate: Share of new sequences whose context shows another scene, as if the words had
            just changed.
        lost_rate: Share of new sequences with a band of columns lost.
        forget_rate: Share of sequences, at each step, that lose a band on their way.
        event_rate: Share of new sequences that begin shortly before something happens: a thing
            comes into view, a reward, a hit.
        noisy_rate: Share of new sequences with noise on their frames.
        decoded_rate: Share of the painted frames that are decoded, too, so that they are judged as
            pictures and not as latents alone.
        energy_weight: Of their gradient energy's error, a share, beside that of their pixels.
        hit_rate: Share of the frames that painting learns from (train/scenery.py) that come soon
            after a hit: few do, and the character looks like itself at no other time.
        thing_weight: Of the error where a thing is, against 1 elsewhere.
        character_weight: Where the character is.
        region_weight: Where else the teacher says that small things matter.
        face: Where a window that follows the character looks closest; None: nowhere.
        pixel_weight: Of the loss on decoded crops beside that on latents.
        pixel_after: Progress from which it counts.
        backbone_after: Progress from which the backbone learns with the rest; before, the head
            sees no hidden states.
        backbone_rate: Share of sequences that it sees from then on; the others go without hidden
            states, which costs less, and keeps the head from hanging on them alone.
        outcome_weight: Of reward, cost and termination.
        entry_weight: Of the codes' cross-entropy.
        happening_weight: Of steps with a reward, a hit or an end, in those losses.
        crop_size: Of the decoded crops, px.
        scenery: How words and the scenery memory are taught before all else (train/scenery.py),
            after which they stay; None: they learn with the rest.
        windows: How each window learns on, alone, after that (train/windows.py): the largest for
            so many train steps, the others for fewer; None: not at all.
        sharding: "none": every process of several holds the whole model; "full": its share of the
            weights, gradients, averages and optimizer state, for models too large for one device.
    """

    optimizer: OptimizerConfig
    fresh_rate: tuple[tuple[float, float], ...] = (
        (0.0, 1.0), (0.1, 1.0), (0.35, 0.15), (0.5, 0.1), (1.0, 0.05),
    )  # fmt: skip
    lost_rate: tuple[tuple[float, float], ...] = ((0.0, 0.35), (0.3, 0.65), (0.7, 0.5), (1.0, 0.3))
    forget_rate: float = 0.1
    drawn_rate: float = 0.25
    switch_rate: float = 0.0
    event_rate: float = 0.45
    noisy_rate: float = 0.4
    decoded_rate: float = 0.0
    energy_weight: float = 1.0
    hit_rate: float = 0.0
    thing_weight: float = 6.0
    character_weight: float = 3.0
    region_weight: float = 3.0
    face: FaceConfig | None = None
    pixel_weight: float = 2.0
    pixel_after: float = 0.3
    backbone_after: float = 0.6
    backbone_rate: float = 1.0
    outcome_weight: float = 0.1
    entry_weight: float = 0.1
    happening_weight: float = 4.0
    crop_size: int = 96
    scenery: OptimizerConfig | None = None
    windows: OptimizerConfig | None = None
    sharding: Literal["none", "full"] = "none"
    num_validation: int = 16
    evaluate_every: int = 500
    save_every: int = 200


@dataclass(frozen=True, kw_only=True)
class DecoderTrainConfig:
    """The third stage of training, in which the decoder learns alone (train/decoder.py).

    Attributes:
        own_rate: Share of the frames whose latents are the world's own predictions; the others'
            are encoded.
        num_rollouts: From which those come; each begins with an episode.
        rollout_steps: Steps of each at most.
        keep_every: Only every so manieth step is kept, and the first few.
        squared_weight: Weight of the squared error beside the absolute one.
        gradient_weight: Weight of the L1 loss on the picture's gradients.
        energy_weight: Weight of the error of the local gradient energy, a share.
    """

    optimizer: OptimizerConfig
    own_rate: float = 0.5
    num_rollouts: int = 144
    rollout_steps: int = 104
    keep_every: int = 4
    squared_weight: float = 4.0
    gradient_weight: float = 1.0
    energy_weight: float = 0.1
    evaluate_every: int = 500
    save_every: int = 200


@dataclass(frozen=True, kw_only=True)
class ActionConfig:
    """What an action of a foreign teacher is, and which keys call it.

    Attributes:
        value: What its env is given: a number, or a list of them; None: the action's own place
            among all, for an env whose actions are numbered.
        keys: Names of the keys, as pygame has them, that must all be held.
    """

    value: Any = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a foreign env becomes a teacher; see midas_world/teachers/env.py.

    Attributes:
        height: Of the frames, px; 0: as the env draws them.
        width: Likewise.
        fit: How a frame of another shape gets that size: "pad" adds black bars, "crop" cuts what
            is too much, "stretch" distorts.
        frames: "render" takes pixels from env.render(), "observation" from observations that are
            pictures; "auto" the former where the env can, else the latter.
        repeat: Steps of the env for one of the teacher, by the same action; rewards are summed.
        fps: Steps of the env per second; 0: as its metadata says.
        conditions: "action": pose is the action alone, one entry each; "info": pose and audio are
            what the env's info gives.
        actions: By name, the first being what happens while no key is held; none: made from the
            env's action space.
    """

    height: int = 0
    width: int = 0
    fit: Literal["pad", "crop", "stretch"] = "pad"
    frames: Literal["auto", "render", "observation"] = "auto"
    repeat: int = 1
    fps: float = 0.0
    conditions: Literal["action", "info"] = "action"
    actions: dict[str, ActionConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1, got {self.repeat}")
        if (self.height > 0) != (self.width > 0) or self.height < 0:
            raise ValueError(
                f"height and width must both be positive or both 0, got {self.height} and "
                f"{self.width}"
            )
        if self.fps < 0:
            raise ValueError(f"fps must not be negative, got {self.fps}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which episodes a run learns from, and which are held out.

    Attributes:
        env_id: Gymnasium id of the teacher, "module:id"; empty: there is none, and what is learned
            from, held out and begun from are recordings in the data folder.
        env_kwargs: What gymnasium.make is given with it.
        teacher: How a foreign env is adapted, or what recordings have for actions and frames; None:
            the teacher gives frames and named actions by itself.
        conditioner: "module:function" that makes a world's conditioner from its KeyMap; empty:
            which one it is follows from env_id and teacher.
        policy_factory: "module:function" that makes a policy of its name; empty: the ones that
            play any env, of midas_world/teachers/policies.py.
        num_episodes: Training episodes; their seeds count up from ``first_seed``.
        num_validation_episodes: Held-out episodes; their seeds count up from
            ``first_validation_seed`` and are never trained on.
        num_steps: Steps per episode at most.
        policies: Weights of the named policies that collect; none: "random" alone. (A default
            here would be merged with what a preset says, not replaced by it.)
        folder: Where training finds them instead of ``--data``: a folder, or the fsspec URL of
            shards (``midas-world shards``), which the autoencoder's stage reads as a stream.
        num_workers: Processes that decode shards for each training process; 0: it does so itself.
        shuffle_frames: Frames of shards that each of them holds and draws from.
        frames_per_episode: Drawn from an episode of shards in one pass over them; 0: all.
    """

    env_id: str = ""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    teacher: TeacherConfig | None = None
    conditioner: str = ""
    policy_factory: str = ""
    num_episodes: int = 300
    first_seed: int = 1_000_000
    num_validation_episodes: int = 8
    first_validation_seed: int = 0
    num_steps: int = 200
    policies: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    num_workers: int = 0
    shuffle_frames: int = 1024
    frames_per_episode: int = 0

    @property
    def has_teacher(self) -> bool:
        """Whether there is a game that can be played, not recordings alone."""
        return bool(self.env_id)

    @property
    def policy_weights(self) -> dict[str, float]:
        """Weights of the policies that collect."""
        return self.policies or {"random": 1.0}

    def __post_init__(self) -> None:
        """Check that no held-out seed is trained on, the counts, and recordings' actions."""
        if not self.has_teacher and self.teacher is not None and not self.teacher.actions:
            raise ValueError("without a teacher (env_id) there must be actions: teacher.actions")
        for name, least in (("num_workers", 0), ("shuffle_frames", 1), ("frames_per_episode", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        first, last = self.first_seed, self.first_seed + self.num_episodes
        held = self.first_validation_seed
        if first < held + self.num_validation_episodes and held < last:
            raise ValueError(
                f"training seeds {first}..{last - 1} overlap the held-out seeds "
                f"{held}..{held + self.num_validation_episodes - 1}"
            )
