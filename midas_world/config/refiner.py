"""The config of the refiner."""

from dataclasses import dataclass

from midas_world.config.limits import MOST_DEPTH, MOST_STAGES, MOST_WIDTH, check_range


@dataclass(frozen=True, kw_only=True)
class RefinerConfig:
    """The network that draws the character once more, over the decoded picture (model/refiner.py).

    Attributes:
        widths: Channels of its stages, the finest first, at a half of the picture's resolution and
            half as fine each; none: there is no refiner.
        depths: Blocks of each stage, on the way down and on the way up alike.
        window: (height, width) in px that it sees and draws; around the keypoints.
        lift: Px that the window's middle lies above the middle of the keypoints, for there is more
            of a head above its keypoint than of a foot below.
        reach: Px from a limb's bone where its map has fallen to 0.
        fade: Px at the window's rim over which what it draws fades in.
        context_width: Of what the conditions tell each block.
    """

    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    window: tuple[int, int] = (112, 96)
    lift: int = 4
    reach: float = 14.0
    fade: int = 6
    context_width: int = 128

    def __post_init__(self) -> None:
        """Check the limits that the refiner relies on."""
        if len(self.depths) != len(self.widths):
            raise ValueError(
                f"depths must be one per width ({len(self.widths)}), got {len(self.depths)}"
            )
        check_range(self, "widths", "context_width")
        check_range(self, "depths", most=MOST_DEPTH)
        check_range(self, "lift", least=-MOST_WIDTH)
        if len(self.widths) > MOST_STAGES:
            raise ValueError(f"widths must have at most {MOST_STAGES}, got {len(self.widths)}")
        step = 2 ** len(self.widths)
        if any(size < step or size % step for size in self.window):
            raise ValueError(f"window must be multiples of {step}, got {self.window}")
        for name in ("reach", "fade"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def check_fits(
        self, limbs: tuple[tuple[int, int], ...], *, frame_size: tuple[int, int]
    ) -> None:
        """Check that a world of these limbs and frames (H, W) can have this refiner.

        Raises:
            ValueError: There are no limbs, or the window is larger than the frame.
        """
        if not limbs:
            raise ValueError("a refiner (refiner.widths) needs limbs (conditions.limbs)")
        if any(own > whole for own, whole in zip(self.window, frame_size, strict=True)):
            raise ValueError(
                f"refiner.window must fit into the frame's {frame_size}, got {self.window}"
            )
