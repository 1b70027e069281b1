"""Packed layers: held to the plain ones, alone and in an engine."""

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from engine import packed_layers, torch_engine
from engine.packed_layers import (
    PackedAttention,
    PackedLinear,
    PackedSwiGLU,
    PackedTransform,
    can_pack,
    pack_layers,
)
from engine.torch_engine import TorchEngine
from midas_world.backbone import Attention
from midas_world.config import BackboneConfig, TransportConfig
from midas_world.klt import CellTransform
from midas_world.layers import SwiGLU, rope_tables
from midas_world.transport import RowTransport, Transport
from midas_world.world import World, load_world
from tests.engines import play, psnr
from tests.fakes import make_tiny_world
from tests.training import tiny_that_moves

Module = TypeVar("Module", bound=nn.Module)

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(dtype)]
# Sums of some hundred products in another order; of bfloat16 a rounding of the result.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


# After eight steps of random weights.
ROLLOUT_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def drawn(module: Module, dtype: torch.dtype) -> Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.requires_grad_(requires_grad=False).parameters():
        parameter.normal_(0.0, 0.1, generator=generator)
    return module.to(dtype)


def assert_alike(made: Tensor, expected: Tensor) -> None:
    assert made.dtype == expected.dtype
    tolerance = TOLERANCES[made.dtype]
    torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (15, 24), (3, 5, 24)])
def test_one_product_gives_the_outputs_of_all_layers_side_by_side(dtype, bias, shape):
    layers = [drawn(nn.Linear(24, size, bias=bias), dtype) for size in (16, 8, 40)]
    x = randn(*shape, dtype=dtype)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    packed = PackedLinear(layers)
    assert_alike(packed(x), expected)
    assert (packed.in_features, packed.out_features) == (24, 64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_swiglu_is_swiglu(dtype):
    plain = drawn(SwiGLU(24, 40), dtype)
    x = randn(2, 7, 24, dtype=dtype)
    assert_alike(PackedSwiGLU(plain)(x), plain(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_attention_is_attention(dtype):
    config = BackboneConfig(
        num_layers=1, width=24, num_heads=6, num_kv_heads=2, head_dim=4, mlp_width=32
    )
    plain = drawn(Attention(config), dtype)
    packed = PackedAttention(plain)
    x, rope = randn(2, 5, 24, dtype=dtype), rope_tables(torch.arange(5), 4)
    expected, made = plain.project(x, rope), packed.project(x, rope)
    for a, b in zip(made, expected, strict=True):
        assert a.shape == b.shape
        assert_alike(a, b)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    assert_alike(packed.attend(*expected, mask), plain.attend(*expected, mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_packed_transform_decodes_as_the_plain_one(dtype):
    plain = CellTransform(2, 10, 8)
    generator = torch.Generator().manual_seed(2)
    plain.gain.uniform_(0.5, 2.0, generator=generator)
    plain.mean.normal_(0.0, 0.3, generator=generator)
    latents = randn(3, 10, 2, 4)
    made = PackedTransform(plain, dtype)(latents.to(dtype))
    assert made.dtype == dtype
    # The plain one is in float32: of bfloat16, products and scales are rounded.
    torch.testing.assert_close(
        made.float(), plain(latents), rtol=0.0, atol=1e-5 if dtype == torch.float32 else 5e-2
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_packed_transport_moves_as_the_plain_one(dtype, monkeypatch):
    config = TransportConfig(wavelength=50.0, parallax=(1.0, 0.5), step=2, reach=2, channels=6)
    plain = Transport(config, grid=(2, 3), channels=8)
    plain.matrices = randn(*plain.matrices.shape, seed=3, dtype=dtype) / 8
    latents, travel = randn(2, 6, 8), torch.tensor([3.0, -1.5])
    monkeypatch.setattr(packed_layers, "_LEAST_WEIGHTS", 0)
    packed = RowTransport(plain)
    pack_layers(packed)
    assert all(type(layer) is PackedLinear for layer in packed.rows)
    made, expected = packed(latents, travel), plain(latents, travel)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance)


def test_what_is_small_stays_plain_and_what_is_deep_is_found():
    module = nn.ModuleDict(
        {"small": nn.Linear(8, 8), "inner": nn.Sequential(nn.SiLU(), nn.Linear(256, 128))}
    )
    pack_layers(module)
    kinds = [type(layer) for layer in module.modules()]
    assert kinds.count(nn.Linear) == 1
    assert kinds.count(PackedLinear) == 1


@pytest.fixture(scope="module")
def linear_world(tmp_path_factory) -> World:
    """Return a tiny world with a linear autoencoder, in which things move with the camera."""
    folder = tmp_path_factory.mktemp("linear") / "world"
    return load_world(make_tiny_world(folder, config=tiny_that_moves()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_engines_play_as_plain_ones_and_leave_the_world_alone(
    linear_world: World, dtype, monkeypatch
):
    before = {name: tensor.clone() for name, tensor in linear_world.tensors().items()}
    packed = TorchEngine(linear_world, device="cpu", dtype=dtype)
    monkeypatch.setattr(torch_engine, "can_pack", lambda _: False)
    plain = TorchEngine(linear_world, device="cpu", dtype=dtype)
    for engine, kinds in ((packed, {True}), (plain, {False})):
        layers = [*engine._model.modules(), *engine._autoencoder.modules()]
        named = [type(item) for item in layers if isinstance(item, SwiGLU | Attention | Transport)]
        names = {kind.__name__ for kind in named}
        assert {name.startswith(("Packed", "Row")) for name in names} == kinds
    (made, _), (expected, _) = (play(e, linear_world, 8, games=[0, 1]) for e in (packed, plain))
    torch.testing.assert_close(made, expected, rtol=0.0, atol=ROLLOUT_TOLERANCES[dtype])
    frames = plain.decode(expected[-1])
    assert psnr(packed.decode(expected[-1]), frames) > (70.0 if dtype == torch.float32 else 40.0)
    torch.testing.assert_close(packed.encode(frames), plain.encode(frames), rtol=0.05, atol=0.05)
    for name, tensor in linear_world.tensors().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_run_plain(tiny_world: World, dtype):
    engine = TorchEngine(tiny_world, device="cpu", dtype=dtype)
    assert not any(isinstance(layer, PackedLinear) for layer in engine._model.modules())


def test_an_engine_that_is_compiled_keeps_plain_layers(tiny_world: World, monkeypatch):
    monkeypatch.setattr(TorchEngine, "_compile", lambda engine: None)  # it takes half a minute
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32, compile=True)
    assert not any(isinstance(layer, PackedLinear) for layer in engine._model.modules())
