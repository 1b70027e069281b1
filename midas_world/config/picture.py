"""Configs of what a picture is made from: moved copies, the scenery, and codes of things."""

from dataclasses import dataclass, field

from midas_world.config.limits import MOST_TRAVEL, check_range


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """How what is in the picture moves on from frame to frame (model/motion.py).

    Attributes:
        parallax: Shares of the declared camera's travel; the head chooses between one copy each.
        reach: Largest travel of a step, px; what travels farther is moved by so much.
        flow: Largest travel in a step, px along each axis, of what moves as the head says, place
            by place; for worlds without a declared camera. 0: nothing does.
    """

    parallax: tuple[float, ...] = ()
    reach: int = 8
    flow: int = 0

    def __post_init__(self) -> None:
        """Check the travel."""
        check_range(self, "reach", "flow", least=0, most=256)

    @property
    def num_copies(self) -> int:
        """P."""
        return len(self.parallax)


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """One layer of the scenery memory (model/scenery.py).

    Attributes:
        parallax: Share of the camera's travel that it scrolls by.
        loop: Pixels of its own scrolling after which it repeats.
        phases: Pictures that it goes through in the clock's period; 1: it stands still.
        slots: Sceneries that it remembers, mixed by what the words say.
        resolution: Pixels of a cell of its tables; divides the autoencoder's downsampling.
        channels: Of a cell.
    """

    parallax: float
    loop: int
    phases: int = 1
    slots: int = 12
    resolution: int = 4
    channels: int = 8

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_range(self, "loop", most=MOST_TRAVEL)
        check_range(self, "phases", "slots", "resolution", "channels")


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """A window of the picture that a network of its own paints (windows.py).

    Attributes:
        size: Rows and columns of the fine grid, even.
        at: First row and column; None: the window follows the middle of the keypoints.
        shown_by: Entry of the pose that is above 0.5 where the window is seen; None: it always is.
        widths: Of the network at full and at half resolution.
    """

    size: tuple[int, int]
    at: tuple[int, int] | None = None
    shown_by: int | None = None
    widths: tuple[int, int] = (96, 192)

    def __post_init__(self) -> None:
        """Check the sizes, and that the window can be halved."""
        check_range(self, "widths")
        if any(size < 2 or size % 2 for size in self.size):
            raise ValueError(f"size must be even and positive, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class SceneryConfig:
    """What the conditions of a frame alone say of its picture.

    Attributes:
        width: Of the network that paints the scenery (scenery.py); 0: nothing is painted.
        layers: What is looked up for it.
        windows: What is painted into it, one after another (windows.py).
    """

    width: int = 0
    layers: dict[str, LayerConfig] = field(default_factory=dict)
    windows: dict[str, WindowConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there is a network that paints layers and what windows lie in."""
        check_range(self, "width", least=0)
        for name in ("layers", "windows"):
            if getattr(self, name) and not self.width:
                raise ValueError(
                    f"scenery.width must be positive where there are scenery.{name}, got 0"
                )


@dataclass(frozen=True, kw_only=True)
class EntriesConfig:
    """The discrete codes of the things in view (model/entries.py).

    Attributes:
        num_classes: Kinds of things; 0: there are no codes.
        capacity: J, codes that are told at once.
        strip: Pixels of newly uncovered world that a code is drawn for.
        outside: How far outside the picture a code is drawn, and told, px.
        phases: Pictures that a thing goes through in the clock's period; 1: it stands still.
        channels: Of the maps that codes are told as.
        columns: Columns of the fine grid that a code's map spans.
    """

    num_classes: int = 0
    capacity: int = 12
    strip: int = 8
    outside: int = 16
    phases: int = 1
    channels: int = 8
    columns: int = 7

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_range(self, "num_classes", "outside", least=0)
        check_range(self, "capacity", "strip", "phases", "channels", "columns", most=4096)
