import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from envs.stage.controller import WORLD_LENGTH
from midas_world.checkpoint import CheckpointError, load_tensors, select
from midas_world.conditions import AUDIO, POSE, TEXT, ConditionEncoder, Conditions
from midas_world.conditions_config import ConditionsConfig
from midas_world.config import WorldConfig, load_preset
from midas_world.diffusion import DiffusionHead
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.loop import seeded_weights
from midas_world.train.renderer import RendererLoss, train_renderer
from midas_world.train.sources import open_sequence_source
from midas_world.world_model import WorldModel
from tests.training import CPU, tiny

CONFIG = ConditionsConfig(
    pose_size=8,
    num_keypoints=2,
    audio_size=6,
    text_buckets=64,
    text_length=10,
    encoder_width=16,
    renderer_width=24,
    renderer_layers=2,
    phase_octaves=3,
)


def make_encoder(config: ConditionsConfig = CONFIG) -> ConditionEncoder:
    encoder = ConditionEncoder(config, width=12, grid=(3, 5), latent_channels=7)
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.requires_grad_(False).parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
    return encoder


def make_conditions(config: ConditionsConfig = CONFIG, *, seed: int = 0) -> Conditions:
    generator = torch.Generator().manual_seed(seed)
    words = (2, 3, config.text_length)
    return Conditions(
        pose=torch.randn(2, 3, config.pose_size, generator=generator),
        text=torch.randint(1, config.text_buckets, words, generator=generator),
        audio=torch.rand(2, 3, config.audio_size, generator=generator),
        present=torch.ones(2, 3, 3, dtype=torch.bool),
    )


def test_every_cell_is_told_and_foretold_by_itself():
    encoder, conditions = make_encoder(), make_conditions()
    tokens, local, foretold = encoder(conditions)
    assert tokens.shape == (2, 3, 3, 12)
    assert local.shape == (2, 3, 15, 12)
    assert foretold.shape == (2, 3, 15, 7)
    assert torch.equal(encoder.foretell(conditions), foretold)
    # No two cells see the same pose in the same way.
    gaps = torch.cdist(foretold[0, 0], foretold[0, 0]) + 100 * torch.eye(15)
    assert gaps.min() > 1e-2


@pytest.mark.parametrize("modality", [POSE, TEXT, AUDIO])
def test_what_is_foretold_follows_each_modality_but_not_an_absent_one(modality):
    encoder = make_encoder()
    first, second = make_conditions(seed=1), make_conditions(seed=2)
    name = ("pose", "text", "audio")[modality]
    changed = dataclasses.replace(first, **{name: getattr(second, name)})
    assert (encoder.foretell(first) - encoder.foretell(changed)).abs().amax(dim=-1).min() > 1e-3
    absent = torch.ones(2, 3, 3, dtype=torch.bool)
    absent[..., modality] = False
    silent = [
        encoder.foretell(dataclasses.replace(item, present=absent)) for item in (first, changed)
    ]
    assert torch.equal(*silent)
    # A pose of zeros is a pose, and so said to be there; missing words say nothing either way.
    if modality == POSE:
        zero = dataclasses.replace(first, pose=torch.zeros_like(first.pose))
        assert not torch.equal(encoder.foretell(zero), silent[0])


def test_frames_do_not_see_one_another():
    encoder, conditions = make_encoder(), make_conditions()
    whole = encoder.foretell(conditions)
    for frame in range(3):
        alone = encoder.foretell(conditions.frames(frame, frame + 1))
        torch.testing.assert_close(alone[:, 0], whole[:, frame])


def test_the_last_phase_is_doubled_octave_by_octave():
    renderer = make_encoder().renderer
    angle = torch.linspace(-3.0, 3.0, 11)
    pose = torch.randn(1, 11, 8, generator=torch.Generator().manual_seed(0))
    pose[0, :, -2], pose[0, :, -1] = angle.sin(), angle.cos()
    longer = renderer._with_octaves(pose)
    assert torch.equal(longer[..., :8], pose)
    expected = [f(angle * 2**octave) for octave in (1, 2, 3) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(longer[0, :, 8:], torch.stack(expected, -1), atol=1e-5, rtol=0.0)


def test_without_octaves_the_pose_is_all():
    renderer = make_encoder(dataclasses.replace(CONFIG, phase_octaves=0)).renderer
    pose = torch.randn(1, 2, 8)
    assert renderer._with_octaves(pose) is pose


def test_an_encoder_without_a_renderer_says_what_it_lacks():
    encoder = make_encoder(dataclasses.replace(CONFIG, renderer_width=0, phase_octaves=0))
    assert encoder(make_conditions())[2] is None
    with pytest.raises(ValueError, match=r"conditions\.renderer_width"):
        encoder.foretell(make_conditions())


def test_octaves_of_a_pose_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="phase_octaves needs a pose, got pose_size 0"):
        ConditionsConfig(pose_size=0, num_keypoints=0, phase_octaves=1)


def test_frozen_it_and_its_words_learn_no_more_and_the_rest_does():
    encoder = ConditionEncoder(CONFIG, width=12, grid=(3, 5), latent_channels=7)
    encoder.freeze_renderer()
    tokens, local, _ = encoder(make_conditions())
    (tokens.sum() + local.square().sum()).backward()
    learns = {name.split(".")[0] for name, p in encoder.named_parameters() if p.grad is not None}
    assert "local" in learns
    assert not {"renderer", "words"} & learns


def make_head() -> DiffusionHead:
    config = tiny().world.diffusion
    with seeded_weights(0):
        return DiffusionHead(
            config, latent_channels=8, hidden_width=32, tokens_per_frame=15, num_changes=2
        ).requires_grad_(False)


def head_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(2, 15, 8, generator=generator),
        "sigma": torch.full((2,), 0.5),
        "hidden": torch.randn(2, 15, 48, generator=generator),
        "context": torch.randn(2, 15, 8, generator=generator),
    }


def test_an_untrained_head_goes_half_of_each_foretold_way():
    head, inputs = make_head(), head_inputs()
    correction, motion = inputs["hidden"][..., 32:40], inputs["hidden"][..., 40:]
    torch.testing.assert_close(head(**inputs), 0.5 * correction + 0.5 * motion)


@pytest.mark.parametrize(("bias", "share"), [(-30.0, 0.0), (30.0, 1.0)])
@pytest.mark.parametrize("which", [0, 1])
def test_the_gates_decide_how_much_of_the_foretold_changes_is_taken(which, bias, share):
    head, inputs = make_head(), head_inputs()
    head.gate.bias[8 * which : 8 * which + 4] = bias
    changes = 0.5 * inputs["hidden"][..., 32:]
    changes[..., 8 * which : 8 * which + 4] *= 2 * share
    expected = changes[..., :8] + changes[..., 8:]
    torch.testing.assert_close(head(**inputs), expected, atol=1e-6, rtol=0.0)


def foretelling(world: WorldConfig) -> WorldModel:
    with seeded_weights(0):
        return WorldModel(world)


@torch.no_grad()
def test_the_correction_leads_to_what_is_foretold_and_the_motion_as_that_moves():
    model = foretelling(tiny().world)
    conditions = make_conditions(model.config.conditions)
    model.change_std.uniform_(0.5, 2.0)
    context, level = torch.randn(2, 3, 15, 8), torch.zeros(2, 3)
    model.conditions.renderer.output.weight.normal_()
    hidden = model.hidden(context, level, conditions)
    foretold = model.conditions.foretell(conditions)
    assert hidden.shape == (2, 3, 15, tiny().world.hidden_width)
    correction, motion = hidden[..., 32:40], hidden[..., 40:]
    torch.testing.assert_close(context + correction * model.change_std, foretold)
    moved = foretold[:, :-1] + motion[:, 1:] * model.change_std
    torch.testing.assert_close(moved, foretold[:, 1:])
    # Nothing was foretold before the first frame.
    assert torch.equal(motion[:, 0], correction[:, 0])


@torch.no_grad()
def test_the_cache_remembers_what_was_foretold_of_the_last_frame():
    model = foretelling(tiny().world)
    conditions = make_conditions(model.config.conditions)
    model.conditions.renderer.output.weight.normal_()
    context = torch.randn(2, 3, 15, 8)
    whole = model.hidden(context, torch.full((2, 3), model.config.play_noise), conditions)
    cache = model.new_cache(2, dtype=torch.float32, device=CPU)
    for frame in range(3):
        step = model.step_hidden(context[:, frame], conditions.frames(frame, frame + 1), cache)
        cache.commit()
        torch.testing.assert_close(step[..., 32:], whole[:, frame, :, 32:])
    torch.testing.assert_close(cache.foretold, model.conditions.foretell(conditions)[:, -1])
    # A row that begins anew has seen nothing.
    cache.reset(torch.tensor([True, False]))
    last = cache.last_foretold(context[:, 0])
    assert torch.equal(last[0], context[0, 0])
    assert torch.equal(last[1], cache.foretold[1])


def test_keypoints_are_told_as_waves_of_their_place_in_the_cell():
    config = dataclasses.replace(CONFIG, keypoint_octaves=2)
    plain, waving = make_encoder(), make_encoder(config)
    conditions = make_conditions()
    told, more = plain._local_features(conditions), waving._local_features(conditions)
    torch.testing.assert_close(more[..., : told.shape[-1]], told)
    relative = told[..., 9:]
    expected = [f(math.pi * scale * relative) for scale in (1, 2) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(more[..., told.shape[-1] :], torch.cat(expected, dim=-1))
    absent = torch.zeros(2, 3, 3, dtype=torch.bool)
    silent = waving._local_features(dataclasses.replace(conditions, present=absent))
    assert not silent.any()


def test_a_world_without_a_renderer_has_no_weights_of_one():
    world = tiny("world.conditions.renderer_width=0", "world.conditions.phase_octaves=0").world
    names = set(foretelling(world).state_dict())
    assert world.hidden_width == world.backbone.width
    assert not [name for name in names if "renderer" in name or "gate" in name.split(".")]
    assert "conditions.local_pose.0.weight" in names


def loss_of(conditions: ConditionEncoder, data: Path, coder_folder: Path, change_std: Tensor):
    coder = load_autoencoder(coder_folder, tiny())
    source = open_sequence_source(tiny(), data, coder, device=CPU)
    batch, _ = source.held()
    generator = torch.Generator().manual_seed(0)
    module = RendererLoss(conditions, change_std, character_weight=0.0)
    pairs = batch["latents"][:, :2], batch["conditions"].frames(0, 1)
    with torch.no_grad():
        return float(module(latents=pairs[0], conditions=pairs[1], generator=generator)["loss"])


def test_it_learns_frames_from_their_conditions(data, trained, tmp_path):
    config = tiny("train_renderer.optimizer.train_steps=30")
    coder = load_autoencoder(trained / "autoencoder", config)
    model = foretelling(config.world)
    change_std = torch.full((8,), 0.5)
    before = loss_of(model.conditions, data, trained / "autoencoder", change_std)
    train_renderer(config, data, tmp_path, model.conditions, change_std, coder=coder, device=CPU)
    after = loss_of(model.conditions, data, trained / "autoencoder", change_std)
    assert after < 0.8 * before
    kept = load_tensors(tmp_path / "weights.safetensors")
    assert all(torch.equal(kept[k], v) for k, v in model.conditions.state_dict().items())
    assert len(list((tmp_path / "strips").glob("renderer-*.png"))) == 1


def test_the_dynamics_keep_what_the_renderer_learned(trained):
    dynamics = load_tensors(trained / "dynamics" / "weights.safetensors")
    renderer = load_tensors(trained / "dynamics" / "renderer" / "weights.safetensors")
    kept = select(dynamics, "conditions.")
    frozen = [name for name in renderer if name.split(".")[0] in ("renderer", "words")]
    assert len(frozen) > 5
    for name in frozen:
        assert torch.equal(kept[name], renderer[name]), name
    assert not torch.equal(kept["local.weight"], renderer["local.weight"])


def test_a_broken_renderer_checkpoint_is_an_error(data, trained, tmp_path):
    folder = tmp_path / "dynamics" / "renderer"
    folder.mkdir(parents=True)
    (folder / "train_state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        train_dynamics(
            tiny(), data, tmp_path / "dynamics", autoencoder=trained / "autoencoder", device=CPU
        )


def test_the_shipped_preset_has_a_renderer_that_reads_the_camera():
    world = load_preset("stage").world
    assert world.conditions.renderer_width > 0
    assert world.conditions.phase_octaves > 0
    assert world.transport.wavelength == WORLD_LENGTH / 32
    assert world.hidden_width == world.backbone.width + 4 * world.autoencoder.latent_channels
    assert math.prod(world.grid) == 15


def test_cells_near_keypoints_weigh_more():
    encoder, conditions = make_encoder(), make_conditions()
    pose = torch.full((2, 3, 8), 5.0)
    pose[..., 2:4] = -5.0  # the second keypoint stays far off the picture
    # The first: in the middle of row 1, column 2; then just left of column 2; far away.
    pose[0, 0, :2] = torch.tensor((0.0, 0.0))
    pose[0, 1, :2] = torch.tensor((-0.2 - 0.02, 0.0))
    conditions = dataclasses.replace(conditions, pose=pose)
    near = encoder.near_keypoints(conditions).view(2, 3, 3, 5)
    assert near[0, 0].nonzero().tolist() == [[1, 2]]
    assert near[0, 1].nonzero().tolist() == [[1, 1], [1, 2]]
    assert not near[0, 2].any()
    assert not near[1].any()
    absent = conditions.present.clone()
    absent[..., POSE] = False
    assert not encoder.near_keypoints(dataclasses.replace(conditions, present=absent)).any()

    latents = torch.randn(2, 4, 15, 7, generator=torch.Generator().manual_seed(0))
    pairs = {"latents": latents[:1, :2], "conditions": conditions.rows(0, 1).frames(0, 1)}

    def losses(weight: float) -> dict[str, Tensor]:
        config = dataclasses.replace(CONFIG, drop_rate=0.0)
        module = RendererLoss(make_encoder(config), torch.ones(7), character_weight=weight)
        return module(**pairs, generator=torch.Generator())

    cells = (encoder.foretell(pairs["conditions"]) - pairs["latents"][:, 1:]).square().mean(-1)
    plain, weighted = losses(0.0), losses(3.0)
    torch.testing.assert_close(plain["loss"], cells.mean())
    torch.testing.assert_close(weighted["error"], cells.mean())
    torch.testing.assert_close(weighted["loss"], (cells.sum() + 3 * cells[0, 0, 7]) / 15)
