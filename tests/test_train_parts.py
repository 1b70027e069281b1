import csv
import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image
from torch import Tensor, nn

from midas_world.checkpoint import load_tensors
from midas_world.config import OptimizerConfig
from midas_world.data.episodes import save_episode
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import load_autoencoder, train_autoencoder
from midas_world.train.data import character_weight, crop_corners, open_frames
from midas_world.train.latents import open_latents
from midas_world.train.loop import Trainer, schedule, seeded_weights
from midas_world.train.optimizer import Muon, make_optimizers, orthogonalize
from midas_world.train.strips import save_strip
from midas_world.types import CheckpointError
from tests.disk import opened_files
from tests.training import CPU, STATE, make_episode, tiny


def test_frames_are_decoded_once_and_found_again(data):
    store = open_frames(data / "train")
    assert store.num_frames == 62
    assert store.starts.tolist() == [0, 31, 62]
    first, second = make_episode(1).frames, make_episode(2).frames
    assert np.array_equal(store.frames[1], second)
    gathered = store.gather(np.array([0, 61, 30, 31]))
    assert np.array_equal(gathered, np.stack((first[0], second[30], first[30], second[0])))
    assert np.array_equal(store.keypoints[:31], make_episode(1).extras["keypoints"])
    assert store.episodes == tuple(sorted((data / "train").glob("episode-*")))
    files = list((data / "train" / ".cache" / "frames").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 2
    open_frames(data / "train")
    assert [file.stat().st_mtime_ns for file in files] == written
    with pytest.raises(ValueError, match=r"wants frames of 192x320, .*00000001 has 48x80"):
        store.check_size(192, 320)


DAMAGES = {
    "cut off": lambda data: data[:-9],
    "empty": lambda _: b"",
    "no array": lambda _: b"x" * 300,
    "longer": lambda data: data + b"x",
    "other numbers": lambda data: data.replace(b"'|u1'", b"'|i1'").replace(b"'<f2'", b"'<i2'"),
    "other shape": lambda data: data.replace(b"(31, ", b"(30, "),
    "no end of its header": lambda data: data.replace(b"}", b"("),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_of_the_cache_are_made_again(data, coder, tmp_path, caplog, damage):
    folder = shutil.copytree(data / "train", tmp_path / "train")

    def read() -> list[np.ndarray]:
        store = open_latents(folder, coder, tiny().world, device=CPU)
        return [np.array(part) for part in (*store.frames.frames, *store.latents)]

    whole = read()
    kept = sorted((folder / ".cache").rglob("*.npy"))
    assert len(kept) == 4
    for file in kept:
        file.write_bytes(damage(file.read_bytes()))
    for repaired, expected in zip(read(), whole, strict=True):
        assert np.array_equal(repaired, expected)
    assert caplog.text.count("is damaged") == 4
    caplog.clear()
    read()
    assert not caplog.records


def test_a_damaged_episode_is_passed_over_with_a_warning(tmp_path, caplog):
    for seed in (1, 2):
        save_episode(make_episode(seed, num_steps=4), tmp_path / f"e{seed}", codec="raw")
    (tmp_path / "e1" / "steps.safetensors").write_bytes(b"broken")
    store = open_frames(tmp_path)
    assert store.episodes == (tmp_path / "e2",)
    assert store.num_frames == 5
    assert "skipped" in caplog.text


def test_every_file_of_an_episode_is_read_once_at_each_start(data, coder, tmp_path):
    folder = shutil.copytree(data / "train", tmp_path / "train")
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    episodes = [folder / f"episode-{seed:08d}" for seed in (1, 2)]
    names = ("frames.safetensors", "header.json", "steps.safetensors")
    for wanted in (names, names[1:]):  # decoded the first time alone
        with opened_files(episodes) as read:
            open_latents(folder, coder, tiny().world, device=CPU)
        assert sorted(read) == [episode / name for episode in episodes for name in wanted]


def test_latents_are_encoded_anew_for_another_encoder_or_other_statistics(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())

    def caches() -> int:
        open_latents(data / "validation", coder, tiny().world, device=CPU)
        return len(list((data / "validation" / ".cache").glob("latents-*")))

    count = caches()
    with torch.no_grad():
        coder.decoder.conv_in.bias.add_(1.0)
        assert caches() == count  # the decoder has no say
        coder.latent_mean.add_(1.0)
        assert caches() == count + 1
        coder.encoder.conv_in.bias.add_(1.0)
        assert caches() == count + 2


def test_crops_lie_in_the_frame_around_what_matters():
    keypoints = np.tile(np.float32((10.0, 24.0)), (400, 3, 1))
    things = np.full((400, 2, 6), -1, np.float32)
    things[:, 0] = 3, 60, 30, 4, 4, 0
    sizes = {"frame_size": (48, 80), "crop_size": 16}

    def corners(character: float, thing: float, step: int = 1) -> np.ndarray:
        rng = np.random.default_rng(0)
        rates = {"character_rate": character, "thing_rate": thing}
        found = crop_corners(keypoints, things, **sizes, **rates, rng=rng, step=step)
        assert (found >= 0).all()
        assert (found <= (32, 64)).all()
        return found

    assert corners(1.0, 0.0)[:, 1].mean() < 12  # kept in the frame, a crop is seldom far left
    assert corners(0.0, 1.0)[:, 1].mean() > 45
    mixed = corners(0.5, 0.3)
    assert len(np.unique(mixed[:, 1])) > 30
    assert not (corners(0.3, 0.3, step=8) % 8).any()


def test_the_character_weight_is_1_on_keypoints_and_limbs_and_0_far_away():
    keypoints = torch.tensor([[[20.0, 24.0], [60.0, 24.0]]])
    weight = character_weight(keypoints, 48, 80, limbs=((0, 0), (0, 1)))
    assert weight.shape == (1, 1, 48, 80)
    assert weight[0, 0, 24, 20] > 0.9
    assert weight[0, 0, 24, 60] > 0.9
    assert weight[0, 0, 24, 40] > 0.9
    assert weight[0, 0, 0, 0] < 0.05
    assert weight.max() <= 1.0
    assert character_weight(keypoints, 48, 80, limbs=())[0, 0, 24, 40] < 0.05
    assert not character_weight(torch.zeros(2, 0, 2), 48, 80, limbs=((0, 1),)).any()


OPTIMIZER = OptimizerConfig(learning_rate=0.5, train_steps=100, batch_size=1, warmup_steps=10)


def test_the_learning_rate_warms_up_and_then_falls_to_its_end():
    shares = [schedule(OPTIMIZER, step) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[10] == pytest.approx(1.0)
    assert shares[100] == pytest.approx(OPTIMIZER.final_learning_rate)
    assert all(a < b for a, b in pairwise(shares[:10]))
    assert all(a > b for a, b in pairwise(shares[10:]))
    assert schedule(OPTIMIZER, 1000) == pytest.approx(OPTIMIZER.final_learning_rate)


def test_seeded_weights_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    layers = []
    for seed in (3, 3, 4):
        with seeded_weights(seed):
            layers.append(nn.Linear(4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (1, 9)])
def test_orthogonalize_brings_singular_values_near_1(shape):
    matrix = 5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    # The quintic of Jordan et al. trades exactness for speed: it aims at 0.7 to 1.2.
    assert values.max() < 1.3
    if shape[0] != shape[1]:  # a square one has values near 0, which take more rounds
        assert values.min() > 0.6


def test_the_optimizers_hold_every_weight_once():
    model = WorldModel(tiny().world)
    for rate in (0.0, 0.02):
        config = dataclasses.replace(OPTIMIZER, muon_learning_rate=rate)
        optimizers = make_optimizers(model, config)
        held = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
        assert [isinstance(o, Muon) for o in optimizers] == ([False, True] if rate else [False])
    inner = {id(p) for group in optimizers[1].param_groups for p in group["params"]}
    assert id(model.backbone.layers[0].self_attn.q_proj.weight) in inner
    assert id(model.head.output.weight) not in inner
    assert id(model.latent_in.weight) not in inner
    tables = make_optimizers(model, dataclasses.replace(OPTIMIZER, table_learning_rate=0.03))
    own = [group for o in tables for group in o.param_groups if group["peak"] == 0.03]
    held = {id(p) for group in own for p in group["params"]}
    assert id(model.entries.table) in held
    assert id(model.conditions.words.weight) in held


class Slope(nn.Module):
    """A line through nothing whose slope is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.slope * x - 3 * x).square().mean()}


def run_slope(folder: Path, *, steps: int = 100, **options) -> Trainer:
    config = dataclasses.replace(OPTIMIZER, train_steps=steps, ema_decay=0.5, bf16=False)
    trainer = Trainer(Slope(), config, folder, seed=0, device=CPU)
    trainer.resume()
    trainer.run(
        lambda generator, _: {"x": torch.randn(8, generator=generator)},
        save_every=50,
        evaluate_every=50,
        evaluate=lambda: {"slope": trainer.module.slope.item()},
        **options,
    )
    return trainer


def test_the_trainer_learns_any_module_and_logs_its_average(tmp_path):
    trainer = run_slope(tmp_path)
    assert trainer.module.slope.item() == pytest.approx(3.0, abs=0.1)
    with (tmp_path / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "eval/slope"]
    assert [row["train_step"] for row in rows] == ["50", "100"]
    average = trainer.average["slope"].item()
    assert float(rows[-1]["value"]) == pytest.approx(average, rel=1e-4)
    assert average != trainer.module.slope.item()


def test_numbers_too_small_for_training_are_numbers_again_behind_it(tmp_path):
    seen: list[float] = []
    tiny_number = torch.tensor([1e-40])
    run_slope(tmp_path, steps=1, before_step=lambda _: seen.append((1.0 * tiny_number).item()))
    assert seen == [0.0]
    assert (1.0 * tiny_number).item() > 0


def test_averaged_weights_are_inside_the_module_only_for_the_with(tmp_path):
    trainer = run_slope(tmp_path, steps=5)
    own = trainer.module.slope.item()
    with trainer.averaged():
        assert trainer.module.slope.item() == trainer.average["slope"].item()
        assert not trainer.module.training
    assert trainer.module.slope.item() == own
    assert trainer.module.training


def test_a_damaged_state_is_a_checkpoint_error(tmp_path):
    run_slope(tmp_path, steps=2)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="train_state"):
        run_slope(tmp_path, steps=4)


def test_strips_hold_every_frame_in_its_place(tmp_path):
    frames = [
        [np.full((4, 6, 3), 10 * row + column, np.uint8) for column in (1, 2)] for row in (1, 2)
    ]
    save_strip(frames, tmp_path / "strips" / "a.png", gap=2)
    sheet = (image.imread(tmp_path / "strips" / "a.png")[..., :3] * 255).round().astype(int)
    assert sheet.shape == (10, 14, 3)
    assert (sheet[:4, :6] == 11).all()
    assert (sheet[6:, 8:] == 22).all()
    assert (sheet[4:6] == 255).all()
    with pytest.raises(ValueError, match="equally long"):
        save_strip([frames[0], frames[1][:1]], tmp_path / "b.png")


def test_an_encoder_frozen_from_the_start_keeps_its_latents(data: Path, tmp_path: Path):
    first = train_autoencoder(tiny(), data, tmp_path / "first", device=CPU, stop_at=2)
    config = tiny("train_autoencoder.freeze_encoder_after=0")
    second = train_autoencoder(
        config, data, tmp_path / "second", device=CPU, init_from=first, stop_at=2
    )
    before = load_tensors(first / "weights.safetensors")
    after = load_tensors(second / "weights.safetensors")
    for name, tensor in after.items():
        if not name.startswith("decoder."):
            assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(after[name], before[name]) for name in after)
