import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401 - registers the learned world
from midas_world.commands import dream as dream_module
from midas_world.commands.cli import main
from midas_world.commands.dream import TRAIN_SHARES, _fitting_steps, with_train_steps
from midas_world.commands.dream_work import STATE_FILE, DreamRequest, WorkFolder
from midas_world.config import ProjectConfig, load_config, load_preset
from midas_world.teachers.collect import CollectResult
from midas_world.teachers.options import add_teacher_options
from midas_world.world import load_world

DISC = "tests.disc_env:Fake/Disc-v0"


def request_for(folder: Path, *, words: tuple[str, ...] = (), **changes) -> DreamRequest:
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    settings = {
        "env_id": DISC,
        "options": parser.parse_args(words),
        "preset": "tiny",
        "overrides": (),
        "output": folder / "world",
        "work": folder / "work",
    }
    return DreamRequest(**(settings | changes))


@pytest.fixture(scope="module")
def dreamt(tmp_path_factory) -> tuple[Path, list[str]]:
    """A world made by the command of an env that this project's worlds know nothing of."""
    folder = tmp_path_factory.mktemp("dream")
    command = ["dream", DISC, "--output", str(folder / "disc"), "--work", str(folder / "work")]
    command += ["--preset", "tiny", "--steps-budget", "4", "--steps", "12", "--workers", "1"]
    command += ["--codec", "raw", "--evaluate", "quick"]
    command += ["train_autoencoder.optimizer.bf16=false", "train_dynamics.optimizer.bf16=false"]
    assert main(command) == 0
    return folder, command


def test_one_command_makes_a_world_that_can_be_played(dreamt):
    folder, _ = dreamt
    world = load_world(folder / "disc")
    assert world.config.data.env_id == DISC
    assert world.keymap.actions == ("action_0", "action_1", "action_2")
    assert world.start_states
    env = gymnasium.make("midas/Stage-v0", world=str(folder / "disc"), backend="torch")
    frame, info = env.reset(seed=0)
    assert (frame.shape, frame.dtype) == ((48, 80, 3), np.uint8)
    frames = []
    for action in (2, 0):
        frame, _, ended, _, info = env.step(action)
        np.testing.assert_array_equal(info["pose"], np.eye(3, dtype=np.float32)[action])
        assert info["text"].endswith(f"action {action}")
        frames.append(frame)
        if ended:  # it has learned for four steps alone
            env.reset(seed=1)
    env.close()


def test_the_world_says_how_good_it_is(dreamt):
    folder, _ = dreamt
    card = (folder / "disc" / "README.md").read_text(encoding="utf-8")
    report = json.loads((folder / "disc" / "evaluation.json").read_text(encoding="utf-8"))
    measured = report["sections"]["next_frame"]["values"]["psnr"]
    assert f"| next-frame PSNR | {measured:.1f} dB |" in card
    assert 'pose: skipped, the teacher gives no info["keypoints"]' in card
    statuses = {name: section["status"] for name, section in report["sections"].items()}
    # The disc tells of no keypoints and no things, listens to no words, and never talks or walks.
    for name in ("pose", "things", "prompts", "voice", "gestures", "weather", "revisit"):
        assert statuses.pop(name) == "skipped"
    assert set(statuses.values()) == {"ok"}, statuses


def test_the_same_command_again_goes_on_and_does_nothing_twice(dreamt, capsys):
    folder, command = dreamt
    weights = folder / "disc" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert main(command) == 0
    assert weights.stat().st_mtime_ns == before
    assert f"python play.py --world {folder / 'disc'}" in capsys.readouterr().out


def test_what_could_not_be_measured_is_measured_by_the_next_call(dreamt, monkeypatch):
    folder, command = dreamt
    path = folder / "work" / "evaluation" / "evaluation.json"
    report = json.loads(path.read_text())
    report["sections"]["horizon"]["status"] = "failed"
    path.write_text(json.dumps(report))
    measured = []
    real = dream_module.evaluate

    def note(world, settings, output, *, sections):
        measured.extend(sections)
        return real(world, settings, output, sections=sections)

    monkeypatch.setattr(dream_module, "evaluate", note)
    for _ in range(2):
        assert main(command) == 0
        assert measured == ["horizon"]
    shipped = json.loads((folder / "disc" / "evaluation.json").read_text())
    assert shipped["sections"]["horizon"]["status"] == "ok"
    assert set(shipped["sections"]) == set(report["sections"])


def test_another_request_is_refused_in_the_same_folder(dreamt, capsys):
    _, command = dreamt
    place = command.index("--steps-budget") + 1
    other = [*command[:place], "5", *command[place + 1 :]]
    assert main(other) == 2
    assert "was begun with steps_budget 4, not 5; name another --work" in capsys.readouterr().err


def test_a_part_is_done_only_while_what_it_made_is_there(tmp_path):
    work = WorkFolder(request_for(tmp_path))
    product = tmp_path / "product"
    with work.doing("pack"):
        product.touch()
    again = WorkFolder(request_for(tmp_path))
    assert again.is_done("pack", product)
    product.unlink()
    assert not again.is_done("pack", product)
    with pytest.raises(ArithmeticError), again.doing("evaluate"):
        raise ArithmeticError
    assert not again.is_done("evaluate", tmp_path)
    with pytest.raises(ValueError, match="begun with fit pad, not crop"):
        WorkFolder(request_for(tmp_path, words=("--fit", "crop")))


def test_an_env_that_fails_in_every_episode_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed = CollectResult(collected=0, skipped=0, failed={1: "it broke"}, frames=0, seconds=0.0)
    monkeypatch.setattr("midas_world.commands.dream.collect", lambda config: failed)
    assert main(["dream", DISC, "--preset", "tiny", "--steps", "12"]) == 2
    assert f"no episode of {DISC} could be collected: it broke" in capsys.readouterr().err


def test_train_steps_fit_the_time_at_the_measured_rate(tmp_path):
    config = load_preset("tiny")

    def train(config, folder: Path, stop_at: int | None) -> None:
        assert stop_at is not None
        with (folder / "log.csv").open("w", newline="") as file:
            rows = [("train_step", "name", "value"), (stop_at, "items_per_s", 2.0)]
            csv.writer(file).writerows(rows)

    (tmp_path / "work").mkdir()
    request = request_for(tmp_path, minutes=60.0)
    # Four items of a batch at two a second: two seconds a step.
    expected = int(TRAIN_SHARES["dynamics"] * 3600 / 2)
    assert _fitting_steps("dynamics", train, config, request) == expected
    given = request_for(tmp_path, train_steps=7)
    assert _fitting_steps("dynamics", train, config, given) == 7
    own = replace(request, overrides=("train_dynamics.optimizer.train_steps=8",))
    assert _fitting_steps("dynamics", train, config, own) == 8


def test_what_hangs_on_the_train_steps_goes_with_them():
    config = load_preset("dream")
    short = with_train_steps(with_train_steps(config, "autoencoder", 400), "dynamics", 100)
    settings, before = short.train_autoencoder, config.train_autoencoder
    assert settings.optimizer.train_steps == 400
    assert settings.optimizer.warmup_steps == 40
    share = before.freeze_encoder_after / before.optimizer.train_steps
    assert settings.freeze_encoder_after == round(400 * share)
    assert settings.evaluate_every == 80
    assert short.train_dynamics.optimizer.train_steps == 100
    assert (
        with_train_steps(
            load_preset("tiny"), "autoencoder", 9
        ).train_autoencoder.freeze_encoder_after
        == -1
    )


@pytest.mark.parametrize("damage", [b"", b"\xff", b"world: 3", b"{"])
def test_what_was_decided_and_cannot_be_read_is_decided_anew(tmp_path, monkeypatch, damage):
    request = request_for(tmp_path)
    decided = replace(load_preset("tiny"), seed=7)
    monkeypatch.setattr(dream_module, "project_for", lambda *_, **__: decided)
    monkeypatch.setattr(dream_module, "_num_episodes", lambda *_: 4)
    assert dream_module._decide(request, WorkFolder(request)).seed == 7
    for name in (dream_module.CONFIG_FILE, STATE_FILE):
        (request.work / name).write_bytes(damage)
    work = WorkFolder(request)
    assert work.train_steps == {}
    assert dream_module._decide(request, work).seed == 7
    work.decide("autoencoder", 9)
    assert WorkFolder(request).train_steps == {"autoencoder": 9}
    assert load_config(ProjectConfig, request.work / dream_module.CONFIG_FILE).seed == 7
