"""Layers of exported graphs: held to the plain ones."""

from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.onnx_graphs import make_graph
from engine.onnx_layers import GroupedAttention, NearPoseGuider, PlainHeadBlock, PlainRMSNorm
from midas_world.backbone import Attention
from midas_world.conditions import Conditions
from midas_world.conditions_config import LimbsConfig
from midas_world.config import BackboneConfig
from midas_world.diffusion import HeadBlock
from midas_world.layers import RMSNorm, rope_tables
from midas_world.pose_guider import PoseGuider
from midas_world.transport import RowTransport
from midas_world.world import World, load_world
from tests.fakes import make_tiny_world
from tests.training import tiny_that_moves

Module = TypeVar("Module", bound=nn.Module)

BACKBONE = BackboneConfig(
    num_layers=1, width=24, num_heads=6, num_kv_heads=2, head_dim=4, mlp_width=32
)
LIMBS = LimbsConfig(limbs=((0, 1), (1, 1)), reach=0.5, side=4, width=6, channels=3)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(module: Module) -> Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.requires_grad_(requires_grad=False).parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
    return module.eval()


def assert_alike(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def moving_world(tmp_path_factory) -> World:
    """Return a tiny world with limbs, in which things move with the camera."""
    limbs = "world.conditions.limbs={limbs: [[0, 1], [2, 2]], side: 4, width: 8, channels: 3}"
    folder = tmp_path_factory.mktemp("moving") / "world"
    world = load_world(make_tiny_world(folder, config=tiny_that_moves(limbs)))
    guider = world.model.conditions.renderer.guider
    nn.init.normal_(guider.paint.weight, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(world.model.transport.matrices, generator=torch.Generator().manual_seed(1))
    return world


def test_a_plain_norm_is_the_norm():
    plain = drawn(RMSNorm(24, eps=1e-5))
    x = randn(2, 7, 24)
    assert_alike(PlainRMSNorm(plain)(x), plain(x))


def test_grouped_attention_is_attention_to_ring_and_frame():
    plain = drawn(Attention(BACKBONE))
    grouped = GroupedAttention(plain)
    x, rope = randn(2, 5, 24), rope_tables(torch.arange(7, 12), 4)
    keys, values = randn(1, 2, 2, 15, 4, seed=2), randn(1, 2, 2, 15, 4, seed=3)
    seen = torch.arange(15) % 4 > 0
    q, k, v = plain.project(x, rope)
    everything = torch.cat((keys[0], k), dim=2), torch.cat((values[0], v), dim=2)
    mask = torch.cat((seen, torch.ones(5, dtype=torch.bool)))
    expected = plain.attend(q, *everything, mask.expand(5, -1))
    mask = torch.where(seen, 0.0, -65504.0).expand(2, 1, 1, -1)
    made = grouped(x, grouped.tables(*rope), keys=keys, values=values, mask=mask)
    for a, b in zip(made, (expected, k[None], v[None]), strict=True):
        assert a.shape == b.shape
        assert_alike(a, b)


def test_joined_rows_are_the_layers_own():
    plain = drawn(Attention(BACKBONE))
    made = {tuple(row.tolist()) for row in GroupedAttention(plain).qkv.weight}
    layers = plain.q_proj, plain.k_proj, plain.v_proj
    assert made == {tuple(row.tolist()) for layer in layers for row in layer.weight}


@pytest.mark.parametrize("attends", [True, False])
def test_a_plain_head_block_is_the_block_at_one_level(attends: bool):
    block = drawn(HeadBlock(24, 3, attends=attends))
    x, parts = randn(2, 5, 24), block.parts(randn(1, 6, 24, seed=4), torch.float32)
    assert_alike(PlainHeadBlock(block).modulated(x, parts), block.modulated(x, parts))


@pytest.mark.parametrize("distance", [0.0, 0.7, 50.0])
def test_a_guider_that_paints_near_cells_alone_paints_the_same(distance: float):
    guider = drawn(PoseGuider(LIMBS, feature_width=5, grid=(2, 3), latent_channels=4))
    keypoints, features = 0.5 * randn(2, 1, 6, 2, 2) + distance, randn(2, 1, 6, 5)
    expected = guider(keypoints, features)
    assert bool(expected.any()) == (distance < 50.0)
    assert_alike(NearPoseGuider(guider)(keypoints, features), expected)


def test_a_transport_by_rows_moves_as_the_plain_one(moving_world: World):
    plain = moving_world.model.transport
    latents, travel = randn(4, 15, 6), torch.tensor([0.0, 4.0, -1.5, 40.0])
    made, expected = RowTransport(plain)(latents, travel), plain(latents, travel)
    assert made.shape == expected.shape
    assert_alike(made, expected)


@pytest.mark.parametrize("distance", [0.0, 50.0])
def test_conditions_of_a_world_with_limbs_that_moves_are_the_models(
    moving_world: World, distance: float, tmp_path_factory
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from engine.onnx_export import export_graphs
    from engine.onnx_runtime import Session

    folder = tmp_path_factory.getbasetemp() / "moving-graphs"
    (path,) = export_graphs(moving_world, names=["conditions"], folder=folder).values()
    graph = make_graph("conditions", moving_world, num_denoise_steps=2, batch_size=3)
    inputs = {
        key: randn(*value.shape, seed=place)
        if value.is_floating_point()
        else torch.ones_like(value)
        for place, (key, value) in enumerate(graph.inputs.items())
    }
    inputs["pose"] += distance
    model = moving_world.model
    with torch.no_grad():
        expected = {
            name: value.numpy()
            for name, value in zip(graph.outputs, _plain(model, inputs), strict=True)
        }
    made = {key: np.zeros_like(value, order="C") for key, value in expected.items()}
    Session(path, num_threads=1).run({key: value.numpy() for key, value in inputs.items()}, made)
    for key, value in expected.items():
        np.testing.assert_allclose(made[key], value, rtol=1e-4, atol=1e-4)


def _plain(model, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return tokens, what is foretold, and changes, as the model itself makes them."""
    given = {name: inputs[name][:, None] for name in ("pose", "text", "audio", "present")}
    conditions = Conditions(**given)
    level = torch.full((3, 1), model.config.play_noise)
    tokens, foretold = model.embed(inputs["latents"][:, None], level, conditions)
    changes = model.foretold_changes(
        foretold[:, 0],
        inputs["last_foretold"],
        inputs["latents"],
        phase=model.conditions.camera_phase(conditions)[:, 0],
        last_phase=inputs["last_phase"],
    )
    return tokens[:, 0], foretold[:, 0], changes
