"""What is measured: a world with its weights, or a preset with random ones where it has none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from midas_world.checkpoint import CONFIG_NAME
from midas_world.config import ProjectConfig, WorldConfig, load_config, load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.types import CheckpointError, StepConditions
from midas_world.world import (
    WORLDS_FOLDER,
    KeyMap,
    StartState,
    World,
    find_world,
    load_world,
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured.

    Attributes:
        name: For the report and its folder.
        config: Of the world.
        weights: In words, where they come from.
        make: Returns the world, given the device that it will run on.
    """

    name: str
    config: WorldConfig
    weights: str
    make: Callable[[torch.device], World]


def world_subject(name: str) -> Subject:
    """Return a world with its own weights.

    Raises:
        CheckpointError: There is no such world; the message lists the shipped ones.
    """
    folder = find_world(name)
    return Subject(
        name=folder.resolve().name,
        config=_config_of(folder).world,
        weights=f"of the world {folder.resolve().name!r}",
        make=lambda _: load_world(folder),
    )


def preset_subject(name: str) -> Subject:
    """Return a preset: with the weights of the shipped world of its sizes, or with random ones.

    Raises:
        ValueError: There is no such preset; the message names all.
    """
    config, short = load_preset(name), Path(name).stem
    shipped = WORLDS_FOLDER / short
    why = "the preset has no trained world"
    if (shipped / CONFIG_NAME).is_file():
        if _config_of(shipped).world == config.world:
            return world_subject(str(shipped))
        why = f"the shipped world {short!r} has other sizes than the preset"
    return Subject(
        name=short,
        config=config.world,
        weights=f"random: {why}",
        make=lambda device: random_world(config, short, device),
    )


def random_world(config: ProjectConfig, name: str, device: torch.device) -> World:
    """Return a world of random weights on a device, the same ones each time.

    All weights are drawn, those too that training starts at zero: a GPU multiplies zeros at less
    power, and so faster.
    """
    # The modules draw first weights from the global stream, which is not ours to move.
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device:
        model, autoencoder = WorldModel(config.world), Autoencoder(config.world.autoencoder)
    generator = torch.Generator(device).manual_seed(0)
    for module in (model, autoencoder):
        _draw(module, generator)
        module.eval().requires_grad_(requires_grad=False)
    if device.type == "cuda":
        # The dtype that engines take there; so the largest preset needs half of the memory.
        model.backbone.to(torch.bfloat16)
    return World(
        folder=Path(f"random-{name}"),
        config=config,
        autoencoder=autoencoder,
        model=model,
        start_states=(random_start(config.world),),
        keymap=KeyMap(actions=("none",), keys={}),
    )


def random_start(config: WorldConfig) -> StartState:
    """Return a start state of random frames that fills the context."""
    rng = np.random.default_rng(0)
    frames = config.backbone.context_frames
    shape = (frames, config.tokens_per_frame, config.token_channels)
    pose, audio = config.conditions.pose_size, config.conditions.audio_size
    conditions = StepConditions(
        pose=rng.uniform(-1, 1, pose).astype(np.float32) if pose else None,
        text="a figure runs along a beach at noon",
        audio=rng.uniform(0, 1, audio).astype(np.float32) if audio else None,
    )
    return StartState(
        latents=torch.from_numpy(rng.standard_normal(shape, np.float32)),
        conditions=(conditions,) * frames,
    )


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and parameter.numel():
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def _config_of(folder: Path) -> ProjectConfig:
    try:
        return load_config(ProjectConfig, folder / CONFIG_NAME)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
