"""The TensorRT engine's own logic, on a stand-in device that runs the graphs with ONNX Runtime.

It reads and writes at the addresses that TensorRT would be given. What needs a GPU is marked gpu.
"""

import ctypes
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import make_engine
from engine.torch_engine import TorchEngine
from engine.trt_plan import BatchRange, load_plans
from midas_world.conditions import stack_conditions
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import World

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from engine import trt_build, trt_engine
from engine.trt_engine import TensorRTEngine
from engine.trt_graphs import plan_graph
from engine.trt_runtime import Built, EngineLoadError

PLANS = ("sampler-fp32", "decoder-fp32")


@pytest.fixture(scope="module")
def graphs(tiny_world: World, kept_graphs: Path) -> dict[str, bytes]:
    """Return the tiny world's float32 graphs."""
    return graphs_of(tiny_world, kept_graphs)


@pytest.fixture(scope="module")
def refined_graphs(refined_world: World, kept_graphs: Path) -> dict[str, bytes]:
    """Return those of a world with a refiner."""
    return graphs_of(refined_world, kept_graphs)


def graphs_of(world: World, folder: Path) -> dict[str, bytes]:
    return {
        plan.graph: plan_graph(world, plan, num_denoise_steps=1, folder=folder)
        for plan in load_plans(PLANS).values()
    }


class CpuDevice:
    """A device whose memory is the CPU's and whose stream does everything at once."""

    torch_device = torch.device("cpu")
    stream = 7

    def active(self):
        return nullcontext()

    def tensor(self, shape, dtype):
        return torch.zeros(tuple(shape), dtype=dtype)

    def capture(self, enqueue):
        calls = CpuEngine.num_calls
        enqueue()
        CpuEngine.num_calls = calls
        return enqueue

    def wait(self):
        pass


class CpuEngine:
    """Runs a graph with ONNX Runtime, reading and writing at addresses as TensorRT does."""

    refusals = 0
    num_calls = 0

    def __init__(self, contents: bytes, *, flavour: str, runtime_cache: bytes):
        if CpuEngine.refusals:
            CpuEngine.refusals -= 1
            raise EngineLoadError("refused")
        runtime = pytest.importorskip("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = runtime.InferenceSession(contents, options)

    def bind(self, addresses, shapes):
        return CpuBound(self, addresses, shapes)

    def runtime_cache(self):
        return b"kernels"


class CpuBound:
    def __init__(self, engine, addresses, shapes):
        self.engine, self.addresses, self.shapes = engine, addresses, shapes

    def enqueue(self, stream):
        assert stream == CpuDevice.stream
        CpuEngine.num_calls += 1
        inputs = {
            name: np.ctypeslib.as_array(
                ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float)), shape
            )
            for name, shape in self.shapes.items()
        }
        for item in self.engine.session.get_outputs():
            (made,) = self.engine.session.run([item.name], inputs)
            made = np.ascontiguousarray(made)
            ctypes.memmove(self.addresses[item.name], made.ctypes.data, made.nbytes)


@pytest.fixture
def engine(tiny_world: World, graphs: dict[str, bytes], tmp_path: Path, monkeypatch):
    """Return what makes a TensorRT engine on a stand-in device, with at most two games a call."""
    return engine_maker(tiny_world, graphs, tmp_path, monkeypatch)


@pytest.fixture
def refined_engine(
    refined_world: World, refined_graphs: dict[str, bytes], tmp_path: Path, monkeypatch
):
    """Return the same for a world with a refiner."""
    return engine_maker(refined_world, refined_graphs, tmp_path, monkeypatch)


def engine_maker(world: World, graphs: dict[str, bytes], folder: Path, monkeypatch):
    def build(_, plan, **options):
        return Built(contents=graphs[plan.graph], tensors={}, num_layers=1)

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
            load=CpuEngine,
        )

    return make


def one_step(engine, batch: int):
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, *engine.spec.latent_shape)
    pose = np.linspace(-0.5, 0.5, engine.spec.config.conditions.pose_size, dtype=np.float32)
    given = [StepConditions(pose=pose / (row + 1), text="a person runs") for row in range(batch)]
    return (
        torch.randn(shape, generator=generator),
        stack_conditions(given, engine.spec.config.conditions),
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


def test_a_steps_frame_is_decoded_once_and_others_anew(engine, tiny_world: World):
    made = engine()
    latents, conditions, noise = one_step(made, 2)
    cache = made.new_cache(2)
    made.decode(made.step(cache, latents, conditions, noise)[0])  # from now on someone looks
    results, *_ = made.step(cache, latents, conditions, noise)
    calls = CpuEngine.num_calls
    frames = made.decode(results)
    assert CpuEngine.num_calls == calls
    others = made.decode(latents)
    assert CpuEngine.num_calls == calls + 1
    assert not np.array_equal(frames, others)
    np.testing.assert_array_equal(made.decode(results), frames)
    changed, *_ = made.step(cache, latents, conditions, noise)
    kept = changed.clone()
    with torch.inference_mode():
        changed += 1.0
    assert not np.array_equal(made.decode(changed), made.decode(kept))


@pytest.mark.parametrize(("batch", "num_samples"), [(2, 1), (5, 3)])
def test_frames_that_nobody_looks_at_are_not_decoded(engine, batch: int, num_samples: int):
    made = engine()
    step, cache = one_step(made, batch), made.new_cache(batch)
    results, *_ = made.step(cache, *step)
    for _ in range(3):
        calls = CpuEngine.num_calls
        results, *_ = made.step(cache, *step)
        assert CpuEngine.num_calls == calls + num_samples
    frames = made.decode(results)
    assert CpuEngine.num_calls == calls + 2 * num_samples
    # A batch in parts is decoded when asked for alone: a step would do it twice.
    made.step(cache, *step)
    calls += 3 * num_samples + (1 if num_samples == 1 else 0)
    assert CpuEngine.num_calls == calls
    np.testing.assert_array_equal(made.decode(results), frames)


@pytest.mark.parametrize("batch", [2, 5])
def test_frames_are_refined_on_the_device(refined_engine, batch: int, refined_world: World):
    made = refined_engine()
    plain = TorchEngine(refined_world, device="cpu")
    cache, step = made.new_cache(batch), one_step(made, batch)
    changed = replace(step[1], pose=-step[1].pose)
    for conditions in (step[1], changed, step[1]):
        latents, *_ = made.step(cache, step[0], conditions, step[2])
        for shown in (conditions, changed):
            drawn, decoded = made.draw(latents, shown), made.decode(latents)
            assert (drawn != decoded).any(axis=(1, 2, 3)).all()
            # The same refiner, over the same frames; of more at once, a CPU may round otherwise.
            parts = [slice(start, min(start + 2, batch)) for start in range(0, batch, 2)]
            expected = [
                plain.refine(decoded[part], shown.rows(part.start, part.stop)) for part in parts
            ]
            np.testing.assert_array_equal(drawn, np.concatenate(expected))
            assert drawn.flags["WRITEABLE"]
        made.draw(latents, conditions)


def test_a_steps_frame_is_drawn_the_way_the_last_one_was(refined_engine):
    made = refined_engine()
    latents, conditions, noise = one_step(made, 2)
    cache = made.new_cache(2)
    others = replace(conditions, pose=-conditions.pose)

    def calls(work) -> int:
        before = CpuEngine.num_calls
        work()
        return CpuEngine.num_calls - before

    def step() -> None:
        nonlocal latents
        latents, *_ = made.step(cache, latents, conditions, noise)

    assert calls(step) == 1
    assert calls(lambda: made.draw(latents, conditions)) == 1
    assert calls(step) == 2
    assert calls(lambda: made.draw(latents, conditions)) == 0
    assert calls(lambda: made.draw(latents, others)) == 1
    assert calls(lambda: made.decode(latents)) == 1
    assert calls(step) == 2  # as decoded
    assert calls(lambda: made.decode(latents)) == 0
    kept = replace(conditions, pose=conditions.pose.clone())
    made.draw(latents, conditions)
    step()
    expected = made.draw(latents, kept)
    conditions.pose.neg_()  # the caller's own
    assert calls(lambda: made.draw(latents, kept)) == 0
    np.testing.assert_array_equal(made.draw(latents, kept), expected)
    assert not np.array_equal(made.draw(latents, conditions), expected)


def test_the_spec_and_what_is_kept(engine, tmp_path: Path):
    made = engine()
    assert (made.spec.backend, made.spec.dtype) == ("rtx", "fp32/fp32")
    made.decode(torch.zeros(1, *made.spec.latent_shape))
    names = sorted(file.name for file in tmp_path.rglob("*.kernels"))
    assert names == [
        "decoder-fp32-tensorrt-rtx-sm89.kernels",
        "sampler-fp32-tensorrt-rtx-sm89.kernels",
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
    with pytest.raises(ValueError, match="one of each of sampler, decoder"):
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
def test_on_a_gpu_frames_are_close_to_float32_torch(backend, tiny_world: World, tmp_path: Path):
    made = make_on_gpu(tiny_world, backend, tmp_path)
    plain = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    caches = [item.new_cache(2) for item in (made, plain)]
    latents, conditions, noise = one_step(made, 2)
    for _ in range(3):
        results = made.step(caches[0], latents, conditions, noise)
        expected = plain.step(caches[1], latents, conditions, noise)
        torch.testing.assert_close(results[0], expected[0], rtol=0.1, atol=0.1)
        latents = expected[0]
    frames = made.decode(results[0])
    assert np.abs(frames.astype(int) - plain.decode(results[0])).mean() < 2
    np.testing.assert_array_equal(frames, made.decode(results[0].clone()))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "rtx"])
def test_on_a_gpu_frames_are_refined(backend, refined_world: World, tmp_path: Path):
    made = make_on_gpu(refined_world, backend, tmp_path)
    plain = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    cache, (latents, conditions, noise) = made.new_cache(2), one_step(made, 2)
    for _ in range(3):
        latents, *_ = made.step(cache, latents, conditions, noise)
        drawn = made.draw(latents, conditions)
        assert np.abs(drawn.astype(int) - plain.draw(latents, conditions)).mean() < 2
    np.testing.assert_array_equal(drawn, made.draw(latents.clone(), conditions))
