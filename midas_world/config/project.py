"""Configs of the model, and the whole project's config.

Frozen dataclasses beside nothing but one another: every module receives its own config, never the
whole tree. Presets are YAML files in ``midas_world/presets``; overrides are dotted strings.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from midas_world.config.autoencoder import AutoencoderConfig
from midas_world.config.conditions import ConditionsConfig
from midas_world.config.limits import (
    MOST_CONTEXT_TOKENS,
    MOST_DEPTH,
    MOST_PIXELS,
    MOST_STAGES,
    MOST_TOKENS,
    check_range,
)
from midas_world.config.picture import EntriesConfig, MotionConfig, SceneryConfig
from midas_world.config.reading import load_config, save_config
from midas_world.config.train import (
    AutoencoderTrainConfig,
    DataConfig,
    DecoderTrainConfig,
    DynamicsTrainConfig,
)
from midas_world.tokenizing import keep_tokenizer, know_tokenizer

PRESETS_FOLDER = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A Qwen2-compatible decoder with frame-causal attention.

    Attributes:
        width: D.
        mlp_width: Width inside SwiGLU.
        context_frames: Frames that attention reaches back to, the present one included.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    context_frames: int = 16
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check the sizes, and the limits that attention relies on."""
        check_range(self, "num_layers", most=MOST_DEPTH)
        check_range(self, "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for RoPE, got {self.head_dim}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, got {self.num_heads} and "
                f"{self.num_kv_heads}"
            )
        if self.context_frames < 2:  # the head is told of two frames
            raise ValueError(f"context_frames must be at least 2, got {self.context_frames}")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The flow-matching head, a U-Net on the fine latent grid, and its sampler.

    Attributes:
        widths: Channels of each level, from the finest to the coarsest.
        depths: Blocks of each level, on the way down and again on the way up.
        vector_width: Of what scales and shifts the blocks.
        num_denoise_steps: K at play time.
        temperature: Scale of the noise that frames are made from at play time. 0 with one denoise
            step is regression: chance then lies in the entry codes alone.
        sigma_mean: Mean of logit(sigma) while training with more than one denoise step.
        sigma_std: Standard deviation of logit(sigma), likewise.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    vector_width: int = 160
    num_denoise_steps: int = 1
    temperature: float = 0.0
    sigma_mean: float = 0.8
    sigma_std: float = 1.5

    def __post_init__(self) -> None:
        """Check the head's sizes."""
        check_range(self, "widths", "vector_width")
        check_range(self, "depths", least=0, most=MOST_DEPTH)
        if len(self.widths) > MOST_STAGES:
            raise ValueError(f"widths must have at most {MOST_STAGES}, got {len(self.widths)}")
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError(
                f"widths and depths must have an entry for each level, got {self.widths} and "
                f"{self.depths}"
            )
        check_range(self, "num_denoise_steps", most=1000)
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")

    @property
    def is_regression(self) -> bool:
        """Whether frames are predicted without noise."""
        return self.num_denoise_steps == 1 and self.temperature == 0


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """A whole world: picture, autoencoder, conditions, backbone and head.

    Attributes:
        height: H, pixels; a multiple of the autoencoder's downsampling.
        width: W, pixels; likewise.
        fps: Steps per second.
        context_noise: Largest noise level on context latents while training (GameNGen: 0.7).
        noise_buckets: Buckets of that level, each with a learned embedding.
        play_noise: Noise level that the context is labelled with at play time.
        prompt_scenes: A prompt on the way that speaks of another scene cuts to a start state of
            it, for a world whose words do not change the scene by themselves.
        reward_limit: Rewards are predicted on a symlog scale up to this size.
        reward_bins: Bins of that scale.
        reward_unit: Size of a single reward, of the smallest where they differ: play pays what is
            likelier than not of it.
        outcome_width: Of the network that reads reward, hits and end from the picture; 0: codes
            tell all of it.
        token_block: Fine latents along each side of a backbone token.
        lives: Hits after which an episode ends; 0: hits end nothing.
    """

    height: int
    width: int
    fps: int = 20
    context_noise: float = 0.3
    noise_buckets: int = 10
    play_noise: float = 0.0
    prompt_scenes: bool = False
    reward_limit: float = 20.0
    reward_bins: int = 41
    reward_unit: float = 1.0
    outcome_width: int = 48
    token_block: int = 1
    lives: int = 0
    autoencoder: AutoencoderConfig
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    scenery: SceneryConfig = field(default_factory=SceneryConfig)
    entries: EntriesConfig = field(default_factory=EntriesConfig)
    backbone: BackboneConfig
    head: HeadConfig

    def __post_init__(self) -> None:
        """Check that the picture divides into tokens and levels, and what needs a camera."""
        check_range(self, "height", "width", "noise_buckets", "token_block")
        check_range(self, "fps", most=1000)
        check_range(self, "reward_bins", least=2)
        check_range(self, "lives", "outcome_width", least=0)
        if not self.outcome_width and not self.entries.num_classes:
            raise ValueError("outcome_width 0 needs codes that tell outcomes (entries.num_classes)")
        if not 0 < self.reward_unit < math.inf:
            raise ValueError(f"reward_unit must be positive and finite, got {self.reward_unit}")
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(
                f"height times width must be at most {MOST_PIXELS}, got {self.height} and "
                f"{self.width}"
            )
        step = self.autoencoder.downsampling * self.token_block
        if self.height % step or self.width % step:
            raise ValueError(
                f"height and width must be multiples of the autoencoder's downsampling times "
                f"token_block, {step}, got {self.height} and {self.width}"
            )
        num_tokens, context = self.tokens_per_frame, self.backbone.context_frames
        if num_tokens > MOST_TOKENS or num_tokens * context > MOST_CONTEXT_TOKENS:
            raise ValueError(
                f"{num_tokens} tokens a frame (at most {MOST_TOKENS}) and {context} context_frames "
                f"of them (at most {MOST_CONTEXT_TOKENS} tokens) are too many"
            )
        levels = 2 ** (len(self.head.widths) - 1)
        rows, columns = self.grid
        token_rows = self.token_grid[0]
        if rows % levels or columns % levels or rows // levels % token_rows:
            raise ValueError(
                f"head.widths: {len(self.head.widths)} levels do not fit a grid of "
                f"{rows}x{columns} and {token_rows} rows of tokens"
            )
        if not self.conditions.camera.is_declared:
            for name in ("motion.parallax", "scenery.layers", "entries.num_classes"):
                first, last = name.split(".")
                if getattr(getattr(self, first), last):
                    raise ValueError(f"{name} needs a camera (conditions.camera.index)")
        for name, window in self.scenery.windows.items():
            if window.at is None and not self.conditions.num_keypoints:
                raise ValueError(f"scenery.windows.{name} follows keypoints, and there are none")
            entry, pose_size = window.shown_by, self.conditions.pose_size
            if entry is not None and not 0 <= entry < pose_size:
                raise ValueError(
                    f"scenery.windows.{name}.shown_by must be an entry of the pose, which has "
                    f"{pose_size}, got {entry}"
                )
            first = window.at or (0, 0)
            ends = (first[0] + window.size[0], first[1] + window.size[1])
            if min(first) < 0 or ends[0] > rows or ends[1] > columns:
                raise ValueError(
                    f"scenery.windows.{name} must lie in the grid of {rows}x{columns}, "
                    f"got {window.size} at {window.at}"
                )
        for name, layer in self.scenery.layers.items():
            if self.autoencoder.downsampling % layer.resolution:
                raise ValueError(
                    f"scenery.layers.{name}.resolution must divide the autoencoder's downsampling "
                    f"of {self.autoencoder.downsampling}, got {layer.resolution}"
                )
            travel = layer.parallax * self.conditions.camera.loop
            if layer.loop % self.autoencoder.downsampling or travel % layer.loop:
                raise ValueError(
                    f"scenery.layers.{name}.loop must be a multiple of "
                    f"{self.autoencoder.downsampling}, the autoencoder's downsampling, and divide "
                    f"the {travel:g} px that the layer travels in the camera's loop, "
                    f"got {layer.loop}"
                )
        if not 0 <= self.play_noise <= max(self.context_noise, 0):
            raise ValueError(
                f"play_noise must lie in [0, context_noise = {self.context_noise}], "
                f"got {self.play_noise}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the fine latent grid."""
        step = self.autoencoder.downsampling
        return self.height // step, self.width // step

    @property
    def num_copies(self) -> int:
        """P: what the head may take a place of the next frame from, beside the last frame."""
        return self.motion.num_copies + bool(self.scenery.width)

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the backbone's tokens."""
        return self.grid[0] // self.token_block, self.grid[1] // self.token_block

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return math.prod(self.token_grid)

    @property
    def token_channels(self) -> int:
        """C, numbers of a token: its block of fine latents."""
        return self.autoencoder.latent_channels * self.token_block**2


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """Everything one preset says."""

    world: WorldConfig
    data: DataConfig = field(default_factory=DataConfig)
    train_autoencoder: AutoencoderTrainConfig
    train_dynamics: DynamicsTrainConfig
    train_decoder: DecoderTrainConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what training says of the world."""
        face, count = self.train_dynamics.face, self.world.conditions.num_keypoints
        if face is not None and face.keypoint >= count:
            raise ValueError(
                f"train_dynamics.face.keypoint must be one of {count} keypoints, got "
                f"{face.keypoint}"
            )


def preset_path(name: str) -> Path:
    """Return the YAML file of a preset, given its name or any path to a YAML file.

    Raises:
        ValueError: No such preset; the message names the nearest one.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    names = sorted(file.stem for file in PRESETS_FOLDER.glob("*.yaml"))
    if name in names:
        return PRESETS_FOLDER / f"{name}.yaml"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise ValueError(
        f"no preset {name!r}; did you mean {nearest[0]!r}? Presets: {', '.join(names)}"
    )


def load_preset(name: str, overrides: Sequence[str] = ()) -> ProjectConfig:
    """Return the project config of a preset; see `load_config` for the errors."""
    path = preset_path(name)
    config = load_config(ProjectConfig, path, overrides)
    know_tokenizer(config.world.conditions.tokenizer, path.parent)
    return config


def save_preset(config: ProjectConfig, path: Path) -> None:
    """Write a preset of one's own, and what it needs beside it."""
    keep_tokenizer(config.world.conditions.tokenizer, path.parent)
    save_config(config, path)
