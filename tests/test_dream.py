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
from midas_world.commands.dream import _fitting_steps, evaluation_for, with_train_steps
from midas_world.commands.dream_card import verdict
from midas_world.commands.dream_work import STATE_FILE, DreamRequest, WorkFolder
from midas_world.config import ProjectConfig, load_config, load_preset
from midas_world.evaluate import command as evaluation
from midas_world.evaluate.report import Section
from midas_world.locks import alone_in
from midas_world.teachers.collected import Collected, look_at
from midas_world.teachers.options import add_teacher_options
from midas_world.train import pack
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


def test_a_world_begins_from_what_was_collected(dreamt, monkeypatch):
    folder, _ = dreamt
    config = load_preset(str(folder / "work" / "dream.yaml"))
    monkeypatch.setattr(pack, "make_teacher", pytest.fail)  # slow envs would play for minutes
    runs = {part: folder / "work" / part for part in ("autoencoder", "dynamics")}
    pack.pack_world(config, folder / "again", **runs, data=folder / "work" / "data")
    first, again = load_world(folder / "disc"), load_world(folder / "again")
    assert again.keymap == first.keymap
    state = again.start_states[0]
    np.testing.assert_array_equal(state.latents, first.start_states[0].latents)
    assert str(state.conditions[-1].text).startswith("x ")
    assert state.conditions[-1].pose is not None
    assert set(state.conditioner_state) == set(first.start_states[0].conditioner_state)


def test_the_world_says_how_good_it_is(dreamt):
    folder, _ = dreamt
    card = (folder / "disc" / "README.md").read_text(encoding="utf-8")
    report = json.loads((folder / "disc" / "evaluation.json").read_text(encoding="utf-8"))
    measured = report["sections"]["next_frame"]["values"]["psnr"]
    assert f"| next-frame PSNR | {measured:.1f} dB |" in card
    found = look_at(folder / "work" / "data" / "train", ["action_0", "action_1", "action_2"])
    assert f"Trained on {found.num_frames} frames, 2 episodes of" in card
    assert f"| action_1 | x | {100 * found.shares['action_1']:.1f} % |" in card
    assert '- pose: skipped, the teacher gives no info["keypoints"]' in card
    assert "- voice, gestures: skipped, the world has no action 'talk'" in card
    statuses = {name: section["status"] for name, section in report["sections"].items()}
    # The disc tells of no keypoints and no things, listens to no words, and never talks or walks.
    for name in ("pose", "things", "prompts", "voice", "gestures", "weather", "revisit"):
        assert statuses.pop(name) == "skipped"
    assert set(statuses.values()) == {"ok"}, statuses


def test_the_same_command_again_goes_on_and_does_nothing_twice(dreamt, capsys, caplog):
    folder, command = dreamt
    weights = folder / "disc" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert main(command) == 0
    assert weights.stat().st_mtime_ns == before
    assert f"python play.py --world {folder / 'disc'}" in capsys.readouterr().out
    assert "frames in 2 episodes are few: under 20000 a world knows little" in caplog.text


def test_what_could_not_be_measured_is_measured_by_the_next_call(dreamt, monkeypatch):
    folder, command = dreamt
    path = folder / "work" / "evaluation" / "evaluation.json"
    report = json.loads(path.read_text())
    report["sections"]["horizon"]["status"] = "failed"
    path.write_text(json.dumps(report))
    measured = []
    real = dream_module.evaluate

    def note(world, settings, output, *, sections, until):
        measured.extend(sections)
        return real(world, settings, output, sections=sections, until=until)

    monkeypatch.setattr(dream_module, "evaluate", note)
    for _ in range(2):
        assert main(command) == 0
        assert measured == ["horizon"]
    shipped = json.loads((folder / "disc" / "evaluation.json").read_text())
    assert shipped["sections"]["horizon"]["status"] == "ok"
    assert set(shipped["sections"]) == set(report["sections"])


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
    told = "was begun with fit pad, not crop; name another --work"
    with pytest.raises(ValueError, match=told):
        WorkFolder(request_for(tmp_path, words=("--fit", "crop")))


def test_nothing_is_kept_of_an_env_that_cannot_be_made(tmp_path):
    request = request_for(tmp_path, env_id="CartPole-v7")
    with pytest.raises(ValueError, match="cannot be made"):
        dream_module.dream(request)
    assert not request.work.exists()


def test_train_steps_fit_the_time_at_the_measured_rate(tmp_path, caplog):
    config = load_preset("tiny")
    lengths = []

    def train(config, folder: Path, stop_at: int | None) -> None:
        assert stop_at is not None
        with alone_in(folder):
            folder.mkdir()
        lengths.append((config.train_dynamics.optimizer.train_steps, stop_at))
        with (folder / "log.csv").open("w", newline="") as file:
            rows = [("train_step", "name", "value"), (stop_at, "items_per_s", 2.0)]
            csv.writer(file).writerows(rows)

    (tmp_path / "work").mkdir()
    request = request_for(tmp_path, minutes=60.0)
    # Four items of a batch at two a second: two seconds a step.
    assert _fitting_steps("dynamics", train, config, request, 2000.0) in (899, 900)
    # The whole course of a run was measured: its last steps cost most.
    assert lengths == [(12, 12)]
    assert not caplog.messages
    assert _fitting_steps("dynamics", train, config, request, 20.0) == 20
    assert caplog.messages == ["those are the least: --minutes is too little for them here"]
    assert not list((tmp_path / "work").iterdir())
    given = request_for(tmp_path, train_steps=7)
    assert _fitting_steps("dynamics", train, config, given, 2000.0) == 7
    own = replace(request, overrides=("train_dynamics.optimizer.train_steps=8",))
    assert _fitting_steps("dynamics", train, config, own, 2000.0) == 8


@pytest.mark.parametrize(("minutes", "is_told"), [(2.0, True), (4.0, False), (None, False)])
def test_less_than_the_least_minutes_is_told_before_anything_begins(
    tmp_path, monkeypatch, caplog, minutes, is_told
):
    def begin(*_):
        raise ArithmeticError

    monkeypatch.setattr(dream_module, "_collect", begin)
    with pytest.raises(ArithmeticError):
        dream_module.dream(request_for(tmp_path, minutes=minutes))
    assert ("the least is about 3 minutes" in caplog.text) == is_told


def test_all_parts_share_the_minutes_and_leave_some_to_measure(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("midas_world.commands.dream_work.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("midas_world.commands.dream_work.time.perf_counter", lambda: clock[0])
    for minutes, least in ((2.0, 0.15), (60.0, 0.05)):
        clock[0] = 0.0
        work = WorkFolder(request_for(tmp_path / str(minutes), minutes=minutes))
        for part in ("collect", "autoencoder", "dynamics"):
            with work.doing(part):
                clock[0] += work.seconds_for(part)
        assert least < work.left_s / (60 * minutes) < 0.25
        # Another call goes on with what is left.
        assert WorkFolder(request_for(tmp_path / str(minutes), minutes=minutes)).left_s == (
            pytest.approx(work.left_s, abs=0.2)
        )
        with work.doing("autoencoder"):
            clock[0] += 60 * minutes  # too slow: the rest does not go below nothing
        assert work.left_s < 0
        assert work.seconds_for("dynamics") == 0.0


def test_how_much_is_measured_follows_the_minutes():
    short, long = (evaluation_for(minutes, episode_steps=300) for minutes in (2.0, 90.0))
    assert (long.long_steps, long.num_rollouts, long.episode_steps) == (1000, 4, 300)
    assert short.long_steps < 100
    assert short.rollout_steps >= 20
    assert short.teacher_options == long.teacher_options == {}


def test_when_the_time_is_over_only_what_tells_the_worth_is_measured(
    tiny_world, tmp_path, monkeypatch
):
    measured = Section(title="", values={})
    monkeypatch.setattr(
        evaluation, "SECTIONS", dict.fromkeys(evaluation.SECTIONS, lambda _: measured)
    )
    names = ["next_frame", "horizon", "sharpness", "speed"]
    for until, wanted in ((0.0, names[:2]), (1e12, names), (None, names)):
        report = evaluation.evaluate(
            tiny_world, evaluation.QUICK, tmp_path, sections=names, until=until
        )
        found = report["sections"].items()
        assert [name for name, section in found if section["status"] == "ok"] == wanted
    assert set(evaluation.FIRST) <= set(evaluation.SECTIONS)


def test_short_episodes_are_collected_until_there_are_enough_frames(here, monkeypatch, caplog):
    monkeypatch.setattr(dream_module, "_CPU_FRAMES", 300)
    monkeypatch.setattr(dream_module, "_GPU_FRAMES", 300)
    request = request_for(here, preset="dream", words=("--steps", "30"), minutes=60.0)
    work = WorkFolder(request)
    config = dream_module._decide(request, work)
    data = here / "work" / "data"
    config = dream_module._collect(config, request, work, data)
    # The disc is gone after 9 to 30 steps: far more than 300 / 30 episodes.
    found = look_at(data / "train", ["action_0", "action_1", "action_2"])
    assert 300 <= found.num_frames < 340
    assert found.num_episodes > 10
    assert config.data.num_episodes == found.num_episodes
    held = look_at(data / "validation", ["action_0", "action_1", "action_2"])
    assert held.num_episodes == config.data.num_validation_episodes == found.num_episodes // 10
    assert load_config(ProjectConfig, work.folder / dream_module.CONFIG_FILE) == config
    # Resumed, nothing more is collected.
    again = dream_module._collect(config, request, WorkFolder(request), data)
    assert again == config
    assert look_at(data / "train", []).num_frames == found.num_frames


def test_collecting_ends_with_its_time_or_its_env(tmp_path, monkeypatch):
    request = request_for(
        tmp_path, preset="dream", words=("--steps", "9", "--size", "96x128"), minutes=0.01
    )
    work = WorkFolder(request)
    config = dream_module._decide(request, work)
    config = dream_module._collect(config, request, work, tmp_path / "data")
    assert 1 <= config.data.num_episodes <= 3
    failing = replace(
        config, data=replace(config.data, env_kwargs={"failing": list(range(1_000_000, 1_000_100))})
    )
    other = replace(request, work=tmp_path / "other", minutes=60.0)
    WorkFolder(other).save()
    with pytest.raises(
        dream_module.DreamError,
        match=f"no episode of {DISC} could be collected: ArithmeticError: the disc is gone$",
    ):
        dream_module._collect(failing, other, WorkFolder(other), tmp_path / "other" / "data")


def test_a_world_that_is_worse_than_standing_still_says_why():
    config = with_train_steps(
        with_train_steps(load_preset("dream"), "autoencoder", 57), "dynamics", 80
    )
    found = Collected(num_episodes=12, num_frames=128, shares={"left": 0.99, "right": 0.01})
    values = {"psnr": 24.0, "repeat_psnr": 30.0, "ceiling_psnr": 25.0}
    horizon = {"psnr_20": 20.0, "hold_psnr_20": 21.0, "psnr_100": None, "hold_psnr_100": None}

    def say(single: dict, rollout: dict, found: Collected = found, config=config) -> str:
        sections = {"next_frame": {"values": single}, "horizon": {"values": rollout}}
        return " ".join(verdict(config, found, sections))

    said = say(values, horizon)
    assert "Worse than repeating the last frame: the next frame 24.0 dB against 30.0" in said
    assert "20 steps on 20.0 dB against 21.0" in said
    for reason in ("128 frames", "57 and 80 train steps", "25.0 dB", "the actions right"):
        assert reason in said
    assert say(values | {"psnr": 31.0}, {"psnr_20": 22.0, "hold_psnr_20": 21.0}) == ""
    # Another episode is as far away as what chance draws: no more is asked.
    by_chance = {"psnr_100": 18.1, "hold_psnr_100": 18.7, "other_psnr_100": 17.7}
    assert say(values | {"psnr": 31.0}, by_chance) == ""
    assert "100 steps on 17.1 dB" in say(values | {"psnr": 31.0}, by_chance | {"psnr_100": 17.1})
    many = Collected(num_episodes=99, num_frames=50_000, shares={"left": 0.5, "right": 0.5})
    long = with_train_steps(with_train_steps(config, "autoencoder", 4000), "dynamics", 6000)
    said = say(values | {"ceiling_psnr": 35.0}, horizon, many, long)
    assert said.endswith("Why: nothing that was counted tells; more train steps may help.")
    assert verdict(config, found, {}) == []


def test_episodes_go_where_training_looks_for_them(here, capsys):
    words = ["--preset", "tiny", "--workers", "1", "--codec", "raw"]
    words += ["data.folder=here", "data.num_episodes=1", "data.num_steps=4"]
    assert main(["collect", *words]) == 0
    assert [path.parent.name for path in Path("here").rglob("header.json")]
    assert main(["collect", "--env", DISC, *words]) == 0
    preset = Path("here/here.yaml")
    assert load_preset(str(preset)).data.folder == "here"
    assert not Path("data").exists()


def test_what_hangs_on_the_train_steps_goes_with_them():
    config = load_preset("dream")
    short = with_train_steps(with_train_steps(config, "autoencoder", 400), "dynamics", 100)
    settings, before = short.train_autoencoder, config.train_autoencoder
    assert settings.optimizer.train_steps == 400
    assert settings.optimizer.warmup_steps == 40
    share = before.freeze_encoder_after / before.optimizer.train_steps
    assert settings.freeze_encoder_after == round(400 * share)
    assert settings.evaluate_every == 200
    assert short.train_dynamics.optimizer.train_steps == 100
    never = with_train_steps(load_preset("tiny"), "autoencoder", 9).train_autoencoder
    assert never.freeze_encoder_after == -1


@pytest.mark.parametrize("damage", [b"", b"\xff", b"world: 3", b"{"])
def test_what_was_decided_and_cannot_be_read_is_decided_anew(tmp_path, monkeypatch, damage):
    request = request_for(tmp_path)
    decided = replace(load_preset("tiny"), seed=7)
    monkeypatch.setattr(dream_module, "project_for", lambda *_, **__: decided)
    assert dream_module._decide(request, WorkFolder(request)).seed == 7
    for name in (dream_module.CONFIG_FILE, STATE_FILE):
        (request.work / name).write_bytes(damage)
    work = WorkFolder(request)
    assert work.train_steps == {}
    assert dream_module._decide(request, work).seed == 7
    work.decide("autoencoder", 9)
    assert WorkFolder(request).train_steps == {"autoencoder": 9}
    assert load_config(ProjectConfig, request.work / dream_module.CONFIG_FILE).seed == 7
