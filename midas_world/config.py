"""Configs of the model, the whole project's config, and the one function that reads them.

Frozen dataclasses beside nothing but one another: every module receives its own config, never the
whole tree. Presets are YAML files in ``midas_world/presets``; overrides are dotted strings.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from midas_world.autoencoder_config import AutoencoderConfig
from midas_world.conditions_config import ConditionsConfig
from midas_world.refiner_config import RefinerConfig
from midas_world.train_config import (
    AutoencoderTrainConfig,
    DataConfig,
    DynamicsTrainConfig,
    RefinerTrainConfig,
    RendererTrainConfig,
)

T = TypeVar("T")

PRESETS_FOLDER = Path(__file__).parent / "presets"


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
        """Check the limits that attention relies on."""
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for RoPE, got {self.head_dim}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, got {self.num_heads} and "
                f"{self.num_kv_heads}"
            )
        if self.context_frames < 1:
            raise ValueError(f"context_frames must be at least 1, got {self.context_frames}")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The flow-matching head and its sampler.

    Attributes:
        kind: "dit" attends over the frame's tokens; "mlp" treats each token alone (MAR).
        num_denoise_steps: K at play time.
        temperature: Scale of the noise that frames are made from at play time; below 1, rollouts
            keep closer to what is likely and vary less.
        noise_draws: Noise draws per backbone pass while training.
        sigma_mean: Mean of logit(sigma) while training.
        sigma_std: Standard deviation of logit(sigma) while training.
    """

    num_layers: int
    width: int
    num_heads: int
    kind: Literal["dit", "mlp"] = "dit"
    num_denoise_steps: int = 4
    temperature: float = 1.0
    noise_draws: int = 4
    sigma_mean: float = 0.0
    sigma_std: float = 1.5

    def __post_init__(self) -> None:
        """Check the head's sizes."""
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads, got {self.width} and {self.num_heads}"
            )
        if self.num_denoise_steps < 1:
            raise ValueError(f"num_denoise_steps must be at least 1, got {self.num_denoise_steps}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """How what a frame holds beyond what was foretold of it moves on to the next (transport.py).

    Attributes:
        wavelength: Pixels of the camera's way in which the phase that the pose ends in goes round
            once; 0: no pose tells where the camera is, and everything stays where it was.
        parallax: Shares of the camera's way; there is one foretold change for each.
        step: Pixels between shifts that are exact.
        reach: How many of them to each side. At one more, nothing is left.
        channels: The first so many latent channels move; the others stay where they were.
    """

    wavelength: float = 0.0
    parallax: tuple[float, ...] = (0.0,)
    step: int = 3
    reach: int = 2
    channels: int = 384

    def __post_init__(self) -> None:
        """Check the limits that the transport relies on."""
        if self.wavelength < 0:
            raise ValueError(f"wavelength must be at least 0, got {self.wavelength}")
        for name in ("step", "reach", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.parallax:
            raise ValueError("parallax must have at least one entry")
        if not self.wavelength and any(self.parallax):
            raise ValueError(f"parallax {self.parallax} needs a wavelength")

    @property
    def is_moving(self) -> bool:
        """Whether anything moves with the camera."""
        return self.wavelength > 0


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
    autoencoder: AutoencoderConfig
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    backbone: BackboneConfig
    diffusion: DiffusionConfig
    refiner: RefinerConfig = field(default_factory=RefinerConfig)

    def __post_init__(self) -> None:
        """Check that the picture divides into latent tokens, and what must fit the picture."""
        step = self.autoencoder.downsampling
        if self.height % step or self.width % step:
            raise ValueError(
                f"height and width must be multiples of the autoencoder's downsampling {step}, "
                f"got {self.height} and {self.width}"
            )
        rows = self.autoencoder.transform_rows
        if rows not in (0, self.grid[0]):
            raise ValueError(
                f"transform_rows must be the rows of the latent grid, {self.grid[0]}, got {rows}"
            )
        if self.transport.is_moving:
            if not (rows and self.is_foretold and self.conditions.pose_size >= 2):
                raise ValueError(
                    "transport.wavelength needs a transform (autoencoder.transform_rows), a "
                    "renderer (conditions.renderer_width) and a pose"
                )
            if self.transport.step * self.transport.reach >= step:
                raise ValueError(
                    f"transport.step times reach must be less than a cell's {step} pixels, "
                    f"got {self.transport.step} and {self.transport.reach}"
                )
        if self.is_refined:
            self.refiner.check_fits(
                self.conditions.limbs.limbs, frame_size=(self.height, self.width)
            )
        if not 0 <= self.play_noise <= max(self.context_noise, 0):
            raise ValueError(
                f"play_noise must lie in [0, context_noise = {self.context_noise}], "
                f"got {self.play_noise}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the latent grid."""
        step = self.autoencoder.downsampling
        return self.height // step, self.width // step

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return math.prod(self.grid)

    @property
    def hidden_width(self) -> int:
        """Z, what the head is given per token: D, and C for each change that is foretold."""
        return self.backbone.width + self.num_changes * self.autoencoder.latent_channels

    @property
    def num_changes(self) -> int:
        """E, the changes that a renderer foretells: the correction, and one for each parallax."""
        return 1 + len(self.transport.parallax) if self.is_foretold else 0

    @property
    def is_foretold(self) -> bool:
        """Whether a renderer foretells the frame."""
        return self.conditions.renderer_width > 0

    @property
    def is_refined(self) -> bool:
        """Whether a refiner draws the character over the decoded frame."""
        return bool(self.refiner.widths)

    @property
    def foretold_shape(self) -> tuple[int, int]:
        """(N, C) of what a renderer foretells of a frame; (0, 0) if there is none."""
        channels = self.autoencoder.latent_channels
        return (self.tokens_per_frame, channels) if self.is_foretold else (0, 0)


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """Everything one preset says."""

    world: WorldConfig
    data: DataConfig = field(default_factory=DataConfig)
    train_autoencoder: AutoencoderTrainConfig
    train_renderer: RendererTrainConfig = field(default_factory=RendererTrainConfig)
    train_dynamics: DynamicsTrainConfig
    train_refiner: RefinerTrainConfig = field(default_factory=RefinerTrainConfig)
    seed: int = 0


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


def load_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Return the config that a YAML file and dotted overrides describe.

    Args:
        cls: The config's dataclass.
        path: A YAML file.
        overrides: Strings such as ``"world.backbone.num_layers=4"``.

    Raises:
        ValueError: The file or an override has an unknown key (the message names the nearest
            valid one), a value of the wrong type, or a value outside its limits.
    """
    try:
        loaded = OmegaConf.load(path)
        if not OmegaConf.is_dict(loaded):
            raise ValueError(f"{path} must hold keys and values")
        changes = OmegaConf.from_dotlist([*overrides])
        _check_keys(cls, OmegaConf.to_container(loaded), str(path))
        _check_keys(cls, OmegaConf.to_container(changes), "override")
        merged = OmegaConf.merge(OmegaConf.structured(cls), loaded, changes)
        return cast("T", OmegaConf.to_object(merged))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_preset(name: str, overrides: Sequence[str] = ()) -> ProjectConfig:
    """Return the project config of a preset; see `load_config` for the errors."""
    return load_config(ProjectConfig, preset_path(name), overrides)


def save_config(config: Any, path: Path) -> None:
    """Write a config as YAML."""
    OmegaConf.save(OmegaConf.structured(config), path)


def _check_keys(cls: type, values: Any, where: str, prefix: str = "") -> None:
    """Raise ValueError for a key that the dataclass has not, naming the nearest that it has."""
    if not isinstance(values, dict):
        return
    names = [item.name for item in fields(cls)]
    hints = get_type_hints(cls)
    for key, value in values.items():
        if key not in names:
            nearest = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise ValueError(
                f"{where}: no key {prefix}{key}; did you mean {prefix}{nearest[0]}? "
                f"Keys here: {', '.join(names)}"
            )
        if is_dataclass(hints[key]) and isinstance(hints[key], type):
            _check_keys(hints[key], value, where, f"{prefix}{key}.")
