"""What a teacher declares of its conditions: the layout of poses, of words and of sound."""

from dataclasses import dataclass, field
from typing import Any

from midas_world.config.limits import MOST_BUCKETS, MOST_TRAVEL, check_range


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where a pose tells the place of a camera that travels along x.

    Attributes:
        index: Entry of the pose, the place as a share of the loop in [0, 1); -1: none.
        loop: Pixels after which the scenery repeats.
    """

    index: int = -1
    loop: int = 1

    def __post_init__(self) -> None:
        """Check the loop."""
        check_range(self, "index", least=-1)
        check_range(self, "loop", most=MOST_TRAVEL)

    @property
    def is_declared(self) -> bool:
        """Whether the pose tells it."""
        return self.index >= 0

    def travel(self, before: Any, after: Any) -> Any:
        """Return the shorter way from places to others within the loop, px, of their shape."""
        return (after - before + self.loop / 2) % self.loop - self.loop / 2


@dataclass(frozen=True, kw_only=True)
class ClockConfig:
    """Where a pose tells the clock by which things turn, flicker and fall.

    Attributes:
        index: Entry of the pose, the clock as a share of its period in [0, 1); -1: none.
        period: Steps.
    """

    index: int = -1
    period: int = 1

    def __post_init__(self) -> None:
        """Check the period."""
        check_range(self, "index", least=-1)
        check_range(self, "period", most=MOST_TRAVEL)

    @property
    def is_declared(self) -> bool:
        """Whether the pose tells it."""
        return self.index >= 0


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig:
    """Sizes and layout of the conditions, and the sizes of their encoders.

    Attributes:
        pose_size: P; 0 if the teacher gives no pose.
        num_keypoints: The first ``2 * num_keypoints`` pose entries are x, y in [-1, 1].
        limbs: Pairs of keypoints with a bone in between; twice the same one is a disc.
        limb_reach: Where a limb's map has fallen to 0, px from its bone.
        camera: Where the pose tells the camera's place.
        clock: Where it tells the clock.
        audio_size: A; 0 if the teacher gives no sound.
        text_buckets: Hash buckets for words and word pairs.
        text_length: Most words and word pairs read of a text.
        drop_rate: Chance that a modality is left out of a training sequence.
        word_drop_rate: Largest share of words left out of a training sequence's texts.
        word_width: Width of the words' embeddings.
        tokenizer: Of a language model whose tokens stand for words and word pairs, by the SHA-256
            of its file (midas_world/tokenizing.py); empty: words are hashed.
    """

    pose_size: int = 0
    num_keypoints: int = 0
    limbs: tuple[tuple[int, int], ...] = ()
    limb_reach: float = 24.0
    camera: CameraConfig = field(default_factory=CameraConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)
    audio_size: int = 0
    text_buckets: int = 4096
    text_length: int = 48
    drop_rate: float = 0.1
    word_drop_rate: float = 0.5
    word_width: int = 96
    tokenizer: str = ""

    def __post_init__(self) -> None:
        """Check the sizes, and that keypoints, limbs, camera and clock fit into the pose."""
        check_range(self, "pose_size", "num_keypoints", "audio_size", least=0)
        check_range(self, "text_length", "word_width")
        check_range(self, "text_buckets", most=MOST_BUCKETS)
        if 2 * self.num_keypoints > self.pose_size:
            raise ValueError(
                f"num_keypoints must be at most pose_size / 2 = {self.pose_size // 2}, "
                f"got {self.num_keypoints}"
            )
        for limb in self.limbs:
            if not all(0 <= index < self.num_keypoints for index in limb):
                raise ValueError(
                    f"limbs must name keypoints 0 to {self.num_keypoints - 1}, got {limb}"
                )
        for name in ("camera", "clock"):
            index = getattr(self, name).index
            if index >= self.pose_size or 0 <= index < 2 * self.num_keypoints:
                raise ValueError(
                    f"{name}.index must be an entry of the pose behind its keypoints, got {index}"
                )

    @property
    def scalars(self) -> tuple[int, ...]:
        """Entries of the pose that are neither keypoints nor the camera nor the clock."""
        taken = {self.camera.index, self.clock.index}
        return tuple(i for i in range(2 * self.num_keypoints, self.pose_size) if i not in taken)

    @property
    def num_tokens(self) -> int:
        """M: one instruction token per modality."""
        return 3
