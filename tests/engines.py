"""Engines under test, and games played on them with conditions of a test's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import make_engine
from engine.on_onnx import export as onnx_export
from engine.on_onnx import files as onnx_files
from engine.on_onnx.engine import OnnxEngine
from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.model.conditions import Conditions
from midas_world.psnr import psnr as frames_psnr
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import StartState, World

# What runs on a device.
ON_GPU = ("torch-cuda", "tensorrt", "rtx")
# px; a middle of 5 px in which no strip of the tiny preset comes near the picture.
_CAMERA = 405.0


def make_backend(name: str, world: World, folder: Path) -> Engine:
    """Return one of the engines under test, or skip with the reason."""
    backend, _, kind = name.partition("-")
    if name == "torch-cuda":
        return TorchEngine(world, device="cuda")
    if name in ON_GPU:
        try:
            return make_engine(world, backend, folder=folder)
        except BackendUnavailableError as error:
            pytest.skip(str(error))
    if backend == "torch":
        return TorchEngine(world, device="cpu", dtype=getattr(torch, kind))
    with pytest.MonkeyPatch.context() as patch:
        if kind == "narrow":  # as on an older CPU
            for module in (onnx_export, onnx_files):
                patch.setattr(module, "has_narrow_sums", lambda: True)
        return OnnxEngine(world, folder=folder)


def steps_of(engine: Engine, count: int, *, game: int = 0) -> list[StepConditions]:
    """Return conditions of a game, some of them absent now and then.

    The camera goes about within 5 px: nothing comes into view, so no chance magnifies roundings.
    """
    sizes = engine.spec.config.conditions
    rng = np.random.default_rng(game)
    given = []
    for step in range(count):
        pose = audio = None
        if sizes.pose_size and step % 5:
            pose = rng.uniform(-1, 1, sizes.pose_size).astype(np.float32)
            if sizes.camera.is_declared:
                pose[sizes.camera.index] *= 2.5 / sizes.camera.loop
                pose[sizes.camera.index] += _CAMERA / sizes.camera.loop
        text = f"a person of game {game} runs {step}" if step % 7 else None
        if sizes.audio_size and step % 3:
            audio = rng.uniform(0, 1, sizes.audio_size).astype(np.float32)
        given.append(StepConditions(pose=pose, text=text, audio=audio))
    return given


def standing(start: StartState, world: World) -> StartState:
    """Return a start state with the camera where `steps_of` lets it go about."""
    camera = world.config.world.conditions.camera
    conditions = []
    for step in start.conditions:
        pose = step.pose.copy()
        pose[camera.index] = _CAMERA / camera.loop
        conditions.append(replace(step, pose=pose))
    return replace(start, conditions=tuple(conditions))


def play(engine: Engine, world: World, count: int, *, games: list[int]) -> tuple[Tensor, Tensor]:
    """Return latents (count, B, N, C) and rewards (count, B) of games played in one batch."""
    rollout = Rollout(engine, len(games))
    starts = [standing(world.start_states[game], world) for game in games]
    rollout.reset(starts, seeds=games)
    given = [steps_of(engine, count, game=game) for game in games]
    made, rewards = [], []
    for step in range(count):
        result = rollout.step([steps[step] for steps in given])
        made.append(rollout.latents)
        rewards.append(torch.from_numpy(result.reward))
    return torch.stack(made), torch.stack(rewards)


def with_codes(conditions: Conditions, generator: torch.Generator) -> Conditions:
    """Return conditions with the first two codes of each game told, and some lives lost."""
    entries = conditions.entries.clone()
    entries[:, :, :2, 0] = torch.randint(
        0, 7, entries[:, :, :2, 0].shape, generator=generator
    ).float()
    entries[:, :, :2, 1] = 80 * torch.rand(entries[:, :, :2, 1].shape, generator=generator) - 40
    tally = torch.rand(conditions.tally.shape, generator=generator) * torch.tensor([1.0, 64.0])
    return replace(conditions, entries=entries, tally=tally)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean PSNR in dB of frames (B, H, W, 3); equal ones give 106."""
    return float(frames_psnr(a, b).mean())
