"""The refiner: where it draws, by what, and how it learns."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midas_world.checkpoint import WEIGHTS_NAME, load_tensors, save_tensors
from midas_world.commands.cli import main
from midas_world.config import ProjectConfig, RefinerConfig, load_preset
from midas_world.model.conditions import AUDIO, POSE, TEXT, Conditions
from midas_world.model.refiner import Refiner
from midas_world.model.skeleton_maps import NUM_RINGS, limb_frames, limb_maps
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.pack import pack_world
from midas_world.train.refiner import measure, train_refiner
from midas_world.train.windows import open_windows
from midas_world.world import make_refiner
from tests.fakes import randomize
from tests.test_conditions import CONFIG, make_conditions
from tests.training import CPU, REFINED, STATE, same, tiny

SMALL = RefinerConfig(
    widths=(6, 8), depths=(1, 1), window=(12, 16), lift=2, reach=5.0, fade=3, context_width=5
)
HEIGHT, WIDTH = 24, 40


def make_small(*, seed: int | None = 0) -> Refiner:
    """Return a small refiner of random weights; with no seed, one as it is made."""
    refiner = Refiner(SMALL, CONFIG, frame_size=(HEIGHT, WIDTH)).eval()
    if seed is not None:
        randomize(refiner, seed)
    return refiner.requires_grad_(requires_grad=False)


def frames_and_conditions(*places: tuple[float, float]) -> tuple[Tensor, Conditions]:
    """Return random frames, and conditions whose two keypoints lie 2 px around these x, y."""
    count = len(places)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(
        0, 256, (count, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8
    )
    given = make_conditions(frames=1, seed=1).pick([0] * count)
    for row, (x, y) in enumerate(places):
        points = torch.tensor(((x - 2, y), (x + 2, y)))
        given.pose[row, 0, :4] = (points / torch.tensor((WIDTH / 2, HEIGHT / 2)) - 1).flatten()
    return frames, given


def changed(refiner: Refiner, frames: Tensor, conditions: Conditions) -> Tensor:
    """Return which pixels a refiner changes, (B, H, W)."""
    return (refiner(frames, conditions) != frames).any(dim=-1)


def test_a_new_refiner_changes_nothing_and_learns():
    refiner = Refiner(SMALL, CONFIG, frame_size=(HEIGHT, WIDTH))
    frames, conditions = frames_and_conditions((20, 12), (9, 10))
    assert torch.equal(refiner(frames, conditions), frames)
    keypoints = (
        refiner.keypoints(conditions) - refiner.corners(refiner.keypoints(conditions))[:, None]
    )
    made = refiner.redraw(torch.zeros(2, 3, 12, 16), keypoints, refiner.known(conditions))
    made.sum().backward()
    assert refiner.output.weight.grad.abs().max() > 0


def test_it_draws_in_a_window_around_the_keypoints_and_nowhere_else():
    refiner = make_small()
    frames, conditions = frames_and_conditions((20, 14), (24, 14), (20, 13))
    drawn = changed(refiner, frames, conditions)
    for row, (top, left) in enumerate(((6, 12), (6, 16), (5, 12))):  # lift 2: y - 6 - 2
        inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        inside[top : top + 12, left : left + 16] = True
        assert not (drawn[row] & ~inside).any()
        assert drawn[row][inside].float().mean() > 0.7


@pytest.mark.parametrize(("x", "y", "left", "top"), [(0, 0, 0, 0), (39, 23, 24, 12)])
def test_the_window_stays_in_the_frame(x, y, left, top):
    refiner = make_small()
    frames, conditions = frames_and_conditions((x, y))
    corner = refiner.corners(refiner.keypoints(conditions))
    assert corner.tolist() == [[left, top]]
    assert changed(refiner, frames, conditions).any()


def test_what_it_draws_fades_in_at_the_rim():
    refiner = make_small()
    assert refiner.rim[0, 5] == pytest.approx(1 / 6)
    assert refiner.rim[5, 1] == pytest.approx(0.5)
    assert refiner.rim[5, 7] == 1.0


def test_without_a_pose_frames_stay_as_they_are_in_that_game_alone():
    refiner = make_small()
    frames, conditions = frames_and_conditions((20, 14), (20, 14))
    conditions.present[1, 0, POSE] = False
    drawn = changed(refiner, frames, conditions)
    assert drawn[0].any()
    assert not drawn[1].any()


@pytest.mark.parametrize("modality", [POSE, TEXT, AUDIO])
def test_it_draws_by_pose_words_and_sound_that_are_there(modality):
    refiner = make_small()
    frames, conditions = frames_and_conditions((20, 14))
    before = refiner.known(conditions)
    name = ("pose", "text", "audio")[modality]
    conditions = dataclasses.replace(conditions, **{name: getattr(conditions, name).roll(1, -1)})
    assert not torch.equal(refiner.known(conditions), before)
    if modality != POSE:
        drawn = refiner(frames, conditions)
        conditions.present[..., modality] = False
        assert not torch.equal(refiner(frames, conditions), drawn)


def test_a_game_of_a_batch_is_the_game_alone():
    refiner = make_small()
    frames, conditions = frames_and_conditions((20, 14), (9, 10), (33, 17))
    together = refiner(frames, conditions)
    for row in range(3):
        alone = refiner(frames[row : row + 1], conditions.pick([row]))
        assert (together[row].int() - alone[0].int()).abs().max() <= 1


def test_its_rings_part_the_distance_and_end_at_reach():
    # Points on a line across a limb from (0, 0) to (4, 0), at x = 2, and beyond its end.
    points = torch.tensor([[2.0, 2.0, 2.0, 2.0, 7.0], [0.0, 1.0, -3.0, 9.0, 4.0]])
    told = limb_frames(
        torch.tensor([[0.0, 0.0], [4.0, 0.0]]),
        points,
        first=torch.tensor([0]),
        last=torch.tensor([1]),
        reach=8.0,
    )
    rings, (near, along, x, y) = told[:, :NUM_RINGS], told[:, NUM_RINGS:].unbind(-1)
    expected = torch.tensor([1.0, 7 / 8, 5 / 8, 0.0, 3 / 8])
    torch.testing.assert_close(near, expected, atol=1e-3, rtol=0.0)
    # Reach is as many rings: at distance d, ring d is 1.
    for point, distance in ((0, 0), (1, 1), (2, 3), (4, 5)):
        assert rings[point].argmax() == distance
        assert rings[point].sum() == pytest.approx(1.0, abs=1e-3)
    assert not told[3].any()
    torch.testing.assert_close(along[:3], torch.zeros(3))
    assert along[4] == pytest.approx(3 / 8, abs=1e-3)
    torch.testing.assert_close(x, torch.tensor([0, 0, 0, 0, 3 / 8 * 3 / 8]), atol=1e-3, rtol=0)
    torch.testing.assert_close(y[1:3], torch.tensor([7 / 64, -15 / 64]), atol=1e-3, rtol=0)
    assert torch.equal(
        near[:, None],
        limb_maps(
            torch.tensor([[0.0, 0.0], [4.0, 0.0]]),
            points,
            first=torch.tensor([0]),
            last=torch.tensor([1]),
            reach=8.0,
        ),
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("world.refiner.depths=[1]", r"depths must be one per width \(2\), got 1"),
        ("world.refiner.depths=[1, 0]", "depths must be 1 to 128, got 0"),
        ("world.refiner.window=[24, 22]", r"window must be multiples of 4, got \(24, 22\)"),
        ("world.refiner.window=[52, 24]", r"window must fit into the frame's \(48, 80\)"),
        ("world.refiner.reach=0", "reach must be above 0"),
        ("world.conditions.limbs=[]", "needs limbs"),
    ],
)
def test_what_cannot_be_is_refused(override, words):
    with pytest.raises(ValueError, match=words):
        load_preset("tiny", [*REFINED, override])


# Learning. The data's character is a bright square of 12 x 16 px that walks.


def refined(*overrides: str) -> ProjectConfig:
    return tiny(
        *REFINED,
        "train_refiner.optimizer={learning_rate: 1e-2, muon_learning_rate: 0.0, train_steps: 60,"
        " batch_size: 8, warmup_steps: 2, ema_decay: 0.9, bf16: false}",
        "train_refiner.num_rollouts=2",
        "train_refiner.num_validation_rollouts=1",
        "train_refiner.rollout_games=3",
        "train_refiner.rollout_frames=12",
        *overrides,
    )


@pytest.fixture(scope="module")
def dynamics(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """Return a checkpoint of dynamics that have limbs, of random weights."""
    folder = tmp_path_factory.mktemp("dynamics")
    model = WorldModel(refined().world)
    save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
    return folder


def train(config: ProjectConfig, data: Path, folder: Path, trained: Path, dynamics: Path, **more):
    return train_refiner(
        config,
        data,
        folder,
        autoencoder=trained / "autoencoder",
        dynamics=dynamics,
        device=CPU,
        **more,
    )


def test_it_learns_to_draw_the_character(data, trained, dynamics, tmp_path):
    config = refined()
    folder = train(config, data, tmp_path / "refiner", trained, dynamics)
    assert (folder / "strips" / "refiner-0000060.png").is_file()
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    told = {name: float(value) for _, name, value in rows[1:] if name.startswith("eval/")}
    assert told["eval/psnr"] > told["eval/decoded_psnr"] + 1.0
    # What was measured while training is what the checkpoint has.
    refiner = make_refiner(config.world)
    refiner.load_state_dict(load_tensors(folder / "weights.safetensors"))
    _, held = open_windows(
        config,
        data,
        folder,
        coder=load_autoencoder(trained / "autoencoder", config),
        model=loaded_model(config, dynamics),
        refiner=refiner,
        device=CPU,
    )
    assert len(held) == 36
    before, after = measure(refiner.eval(), held, device=CPU)
    assert after == pytest.approx(told["eval/psnr"], abs=0.3)  # the log's is in bfloat16
    assert before == pytest.approx(told["eval/decoded_psnr"], abs=0.01)


def loaded_model(config: ProjectConfig, dynamics: Path) -> WorldModel:
    model = WorldModel(config.world)
    model.load_state_dict(load_tensors(dynamics / "weights.safetensors"))
    return model.eval()


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data, trained, dynamics, tmp_path):
    config = refined("train_refiner.optimizer.train_steps=8", "train_refiner.save_every=3")
    whole = train(config, data, tmp_path / "whole", trained, dynamics)
    parts = tmp_path / "parts"
    train(config, data, parts, trained, dynamics, stop_at=5)
    (missing,) = parts.glob("windows-*/train-0001.safetensors")
    missing.unlink()  # as if the session had ended in between
    train(config, data, parts, trained, dynamics)
    assert same(load_tensors(whole / STATE), load_tensors(parts / STATE))


def test_windows_are_made_anew_for_other_weights_and_episodes(data, trained, dynamics, tmp_path):
    config = refined("train_refiner.optimizer.train_steps=2")
    train(config, data, tmp_path / "run", trained, dynamics)
    other = tmp_path / "other"
    other.mkdir()
    tensors = load_tensors(dynamics / "weights.safetensors")
    tensors["change_std"] = tensors["change_std"] * 2
    save_tensors(tensors, other / "weights.safetensors")
    made = tmp_path / "run"

    def count() -> int:
        return len(list(made.glob("windows-*/train-0000.safetensors")))

    assert count() == 1
    (made / STATE).unlink()
    train(config, data, made, trained, other)
    assert count() == 2
    (made / STATE).unlink()
    fewer = tmp_path / "fewer"
    shutil.copytree(data, fewer)
    shutil.rmtree(fewer / "train" / "episode-00000002")
    train(config, fewer, made, trained, other)
    assert count() == 3


def test_training_without_a_refiner_or_on_shards_is_refused(
    data, shards, trained, dynamics, tmp_path
):
    with pytest.raises(ValueError, match=r"refiner.widths is empty"):
        train(tiny(), data, tmp_path, trained, dynamics)
    with pytest.raises(ValueError, match="midas-world shards unpack"):
        train(refined(), Path(shards), tmp_path, trained, dynamics)


def test_the_command_trains_and_names_what_is_missing(data, trained, dynamics, tmp_path, capsys):
    words = [*REFINED, "train_refiner.num_rollouts=1", "train_refiner.num_validation_rollouts=1"]
    words += ["train_refiner.rollout_games=2", "train_refiner.rollout_frames=6"]
    words += ["train_refiner.optimizer={learning_rate: 1e-3, train_steps: 1, batch_size: 2}"]
    command = ["train", "refiner", "--preset", "tiny", "--data", str(data)]
    command += ["--output", str(tmp_path), "--autoencoder", str(trained / "autoencoder")]
    assert main([*command, *words]) == 2
    assert f"{tmp_path / 'dynamics'}" in capsys.readouterr().err
    assert main([*command, "--dynamics", str(dynamics), *words]) == 0
    assert (tmp_path / "refiner" / "weights.safetensors").is_file()


def test_packing_wants_the_refiner(trained, dynamics, tmp_path):
    with pytest.raises(ValueError, match="needs its checkpoint, too"):
        pack_world(
            refined(), tmp_path / "w", autoencoder=trained / "autoencoder", dynamics=dynamics
        )
