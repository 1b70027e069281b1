"""The TensorRT engine's own logic, on a stand-in device that runs the graphs with torch.

It reads and writes at the addresses that TensorRT would be given. What needs a GPU is marked gpu.
"""

import ctypes
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import make_engine
from engine.on_tensorrt import build as trt_build
from engine.on_tensorrt import engine as trt_engine
from engine.on_tensorrt import graphs as trt_graphs
from engine.on_tensorrt.engine import TensorRTEngine
from engine.on_tensorrt.graphs import DecoderGraph, HeadGraph, head_inputs
from engine.on_tensorrt.plan import BatchRange, load_plans
from engine.on_tensorrt.runtime import Built, EngineLoadError
from engine.on_torch.engine import TorchEngine
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import World

PLANS = ("head-fp32", "decoder-fp32")


class CpuDevice:
    """A device whose memory is the CPU's and whose stream does everything at once."""

    torch_device = torch.device("cpu")
    stream = 7

    def active(self):
        return nullcontext()

    def tensor(self, shape):
        return torch.zeros(tuple(shape))

    def capture(self, enqueue):
        calls = CpuEngine.num_calls
        enqueue()
        CpuEngine.num_calls = calls
        return enqueue


class CpuEngine:
    """Runs a graph's module, reading and writing at addresses as TensorRT does."""

    refusals = 0
    num_calls = 0

    def __init__(self, networks, contents: bytes, *, flavour: str, runtime_cache: bytes):
        if CpuEngine.refusals:
            CpuEngine.refusals -= 1
            raise EngineLoadError("refused")
        self.module, _ = networks[contents.decode()]

    def bind(self, addresses, shapes):
        return CpuBound(self.module, addresses, shapes)

    def runtime_cache(self):
        return b"kernels"


class CpuBound:
    def __init__(self, module, addresses, shapes):
        self.module, self.addresses, self.shapes = module, addresses, shapes

    def enqueue(self, stream):
        assert stream == CpuDevice.stream
        CpuEngine.num_calls += 1
        given = {name: self.at(name, shape) for name, shape in self.shapes.items()}
        (output,) = set(self.addresses) - set(self.shapes)
        made = self.module(given)
        self.at(output, made.shape).copy_(made)

    def at(self, name, shape):
        pointer = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float))
        return torch.from_numpy(np.ctypeslib.as_array(pointer, tuple(shape)))


@pytest.fixture
def engine(tiny_world: World, tmp_path: Path, monkeypatch):
    """Return what makes a TensorRT engine on a stand-in device, with at most two games a call."""
    return engine_maker(tiny_world, tmp_path, monkeypatch)


def engine_maker(world: World, folder: Path, monkeypatch):
    guidance, noise = trt_graphs._example(world.model)
    networks = {
        "head": (HeadGraph(world.model, torch.float32, 1), head_inputs(guidance, noise)),
        "decoder": (DecoderGraph(world.autoencoder, torch.float32), {"latents": noise}),
    }

    def build(_, plan, **options):
        module, given = networks[plan.graph]
        told = {
            **{name: ("input", tensor) for name, tensor in given.items()},
            "made": ("output", module(given)),
        }
        tensors = {
            name: {"kind": kind, "dtype": "float", "shape": [-1, *tensor.shape[1:]]}
            for name, (kind, tensor) in told.items()
        }
        return Built(contents=plan.graph.encode(), tensors=tensors)

    def plans(chosen):
        two = BatchRange(max=2)
        return {name: replace(plan, batch=two) for name, plan in load_plans(chosen).items()}

    # So that neither flavour has to be installed.
    monkeypatch.setattr(trt_build, "flavour_version", lambda _: "1.0")
    monkeypatch.setattr(trt_build, "plan_graph", lambda *_, **__: b"")
    monkeypatch.setattr(trt_build, "build_engine", build)
    monkeypatch.setattr(trt_engine, "load_plans", plans)

    def make() -> TensorRTEngine:
        return TensorRTEngine(
            world,
            backend="rtx",
            plans=PLANS,
            num_denoise_steps=1,
            folder=folder,
            device=CpuDevice(),
            capability=89,
            load=partial(CpuEngine, networks),
        )

    return make


def one_step(engine, batch: int):
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, *engine.spec.latent_shape)
    pose = np.linspace(-0.5, 0.5, engine.spec.config.conditions.pose_size, dtype=np.float32)
    given = [StepConditions(pose=pose / (row + 1), text="a person runs") for row in range(batch)]
    return (
        torch.randn(shape, generator=generator),
        engine.spec.stack(given),
        torch.randn(shape, generator=generator),
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_engine_makes_torchs_frames_at_given_addresses(engine, batch: int, tiny_world: World):
    made = engine()
    plain = TorchEngine(tiny_world, device="cpu", num_denoise_steps=1)
    step = one_step(made, batch)
    results = made.step(made.new_cache(batch), *step)
    expected = plain.step(plain.new_cache(batch), *step)
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)  # torch may compute in bfloat16
    frames = made.decode(results[0])
    assert frames.shape == (batch, *made.spec.frame_shape)
    assert frames.flags["WRITEABLE"]
    exact = TorchEngine(tiny_world, device="cpu", dtype=torch.float32).decode(results[0])
    assert np.abs(frames.astype(int) - exact).max() <= 1


def test_games_are_done_in_parts_by_as_many_calls(engine):
    made = engine()
    step, cache = one_step(made, 5), made.new_cache(5)
    made.step(cache, *step)
    calls = CpuEngine.num_calls
    latents = made.step(cache, *step).latents
    assert CpuEngine.num_calls == calls + 3
    kept = made.decode(latents)
    assert CpuEngine.num_calls == calls + 6
    made.decode(-latents)
    np.testing.assert_array_equal(made.decode(latents), kept)


def test_frames_given_are_torchs(engine, tiny_world: World):
    made, plain = engine(), TorchEngine(tiny_world, device="cpu")
    latents, *_ = one_step(made, 2)
    frames = made.decode(latents)
    torch.testing.assert_close(made.encode(frames), plain.encode(frames))


def test_the_spec_and_what_is_kept(engine, tmp_path: Path):
    made = engine()
    assert (made.spec.backend, made.spec.dtype) == ("rtx", "fp32/fp32")
    made.decode(made.step(made.new_cache(1), *one_step(made, 1)).latents)
    names = sorted(file.name for file in tmp_path.rglob("*.kernels"))
    assert names == [
        "decoder-fp32-tensorrt-rtx-sm89.kernels",
        "head-fp32-tensorrt-rtx-sm89.kernels",
    ]


def test_a_file_that_the_device_refuses_is_built_again(engine, monkeypatch, caplog):
    engine()
    monkeypatch.setattr(CpuEngine, "refusals", 1)
    engine()
    assert "refused; building it again" in caplog.text
    monkeypatch.setattr(CpuEngine, "refusals", 2)
    with pytest.raises(EngineLoadError):
        engine()


def test_plans_must_be_one_of_each(tiny_world: World):
    with pytest.raises(ValueError, match="one of each of head, decoder"):
        TensorRTEngine(tiny_world, plans=("decoder-fp16",), device=CpuDevice())


def make_on_gpu(world: World, backend: str, folder: Path):
    pytest.importorskip("pycuda")
    pytest.importorskip({"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}[backend])
    try:
        return make_engine(world, backend, folder=folder)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "rtx"])
def test_on_a_gpu_frames_are_torchs(backend, tiny_world: World, tmp_path: Path):
    made = make_on_gpu(tiny_world, backend, tmp_path)
    plain = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    cache, (latents, conditions, noise) = made.new_cache(2), one_step(made, 2)
    for _ in range(3):
        latents = made.step(cache, latents, conditions, noise).latents
        frames = made.decode(latents)
        assert np.abs(frames.astype(int) - plain.decode(latents)).mean() < 2
        np.testing.assert_array_equal(frames, made.decode(latents.clone()))
