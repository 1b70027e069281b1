"""The config of the condition encoders, of the neural renderer and of its pose guider."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LimbsConfig:
    """The limbs that a renderer's pose guider is shown, and its size.

    Attributes:
        limbs: Pairs of keypoints with a bone in between; twice the same one is a disc. None: there
            is no pose guider.
        reach: Where a limb's map has fallen to 0, in cells from its bone.
        side: Points of a cell's map along its side.
        width: Of the layers over points.
        channels: That a point is painted with.
    """

    limbs: tuple[tuple[int, int], ...] = ()
    reach: float = 0.2
    side: int = 16
    width: int = 32
    channels: int = 8

    def __post_init__(self) -> None:
        """Check the limits that the pose guider relies on."""
        if self.reach <= 0:
            raise ValueError(f"reach must be above 0, got {self.reach}")
        for name in ("side", "width", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig:
    """Sizes of the conditions and of their encoders.

    Attributes:
        pose_size: P; 0 if the teacher gives no pose.
        num_keypoints: The first ``2 * num_keypoints`` pose entries are x, y in [-1, 1].
        audio_size: A; 0 if the teacher gives no sound.
        text_buckets: Hash buckets for words and word pairs.
        text_length: Most words and word pairs read of a text.
        drop_rate: Chance that a modality is left out of a training sequence.
        word_drop_rate: Largest share of words left out of a training sequence's texts.
        encoder_width: Width of the hidden layer of each encoder.
        local_text: Whether the text is told to every latent token, too, as the pose is, and not by
            its own token alone.
        renderer_width: R of the neural renderer, which tells every latent token all that the
            conditions say of it and foretells the frame; 0: none.
        renderer_layers: Of it.
        phase_octaves: How often it doubles the frequency of the last two entries of the pose, the
            sine and cosine of a phase; 0: the pose ends in no such pair.
        keypoint_octaves: Sines and cosines that each cell is told of where keypoints lie from its
            centre, at wavelengths of 2 cells, 1, 1/2 and so on: outlines are sharp where these
            are (Fourier features, arXiv 2006.10739).
        limbs: Of the renderer's pose guider.
    """

    pose_size: int = 48
    num_keypoints: int = 15
    audio_size: int = 40
    text_buckets: int = 4096
    text_length: int = 48
    drop_rate: float = 0.1
    word_drop_rate: float = 0.5
    encoder_width: int = 256
    local_text: bool = False
    renderer_width: int = 0
    renderer_layers: int = 4
    phase_octaves: int = 0
    keypoint_octaves: int = 0
    limbs: LimbsConfig = field(default_factory=LimbsConfig)

    def __post_init__(self) -> None:
        """Check that the keypoints, the limbs and the phase fit into the pose."""
        if 2 * self.num_keypoints > self.pose_size:
            raise ValueError(
                f"num_keypoints must be at most pose_size / 2 = {self.pose_size // 2}, "
                f"got {self.num_keypoints}"
            )
        if self.phase_octaves and self.pose_size < 2:
            raise ValueError(f"phase_octaves needs a pose, got pose_size {self.pose_size}")
        for limb in self.limbs.limbs:
            if not all(0 <= index < self.num_keypoints for index in limb):
                raise ValueError(
                    f"limbs.limbs must name keypoints 0 to {self.num_keypoints - 1}, got {limb}"
                )

    @property
    def num_tokens(self) -> int:
        """M: one instruction token per modality."""
        return 3
