"""Configs: frozen dataclasses beside nothing but one another, and the function that reads them."""

from midas_world.config.autoencoder import AutoencoderConfig
from midas_world.config.conditions import CameraConfig, ClockConfig, ConditionsConfig
from midas_world.config.picture import (
    EntriesConfig,
    LayerConfig,
    MotionConfig,
    SceneryConfig,
    WindowConfig,
)
from midas_world.config.project import (
    PRESETS_FOLDER,
    BackboneConfig,
    HeadConfig,
    ProjectConfig,
    WorldConfig,
    load_preset,
    preset_path,
    save_preset,
)
from midas_world.config.reading import load_config, override_config, save_config
from midas_world.config.train import (
    ActionConfig,
    AutoencoderTrainConfig,
    DataConfig,
    DecoderTrainConfig,
    DynamicsTrainConfig,
    FaceConfig,
    OptimizerConfig,
    TeacherConfig,
)

__all__ = [
    "PRESETS_FOLDER",
    "ActionConfig",
    "AutoencoderConfig",
    "AutoencoderTrainConfig",
    "BackboneConfig",
    "CameraConfig",
    "ClockConfig",
    "ConditionsConfig",
    "DataConfig",
    "DecoderTrainConfig",
    "DynamicsTrainConfig",
    "EntriesConfig",
    "FaceConfig",
    "HeadConfig",
    "LayerConfig",
    "MotionConfig",
    "OptimizerConfig",
    "ProjectConfig",
    "SceneryConfig",
    "TeacherConfig",
    "WindowConfig",
    "WorldConfig",
    "load_config",
    "load_preset",
    "override_config",
    "preset_path",
    "save_config",
    "save_preset",
]
