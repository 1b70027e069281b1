import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from midas_world.config import load_preset
from midas_world.evaluate import command
from midas_world.evaluate.metrics import keypoint_error
from midas_world.evaluate.probes.keypoints import train_probe
from midas_world.evaluate.probes.training import ProbeConfig, halve
from midas_world.evaluate.report import GOALS, Section, Table, read_report, write_report
from midas_world.evaluate.sections.prompt import settled_step
from midas_world.evaluate.study import HeldOut, Study
from midas_world.world import START_STATES_NAME, StartState, load_world, save_start_states
from tests.fakes import make_tiny_world

HEIGHT, WIDTH = 48, 80


class DotTeacher(gymnasium.Env[np.ndarray, np.int64]):
    """A dot that walks left and right over a gradient; leaving the picture ends the episode."""

    def __init__(self, *, keypoints: bool = True) -> None:
        self.action_space = spaces.Discrete(15)
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        self.gives_keypoints = keypoints

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x, self.y = float(self.np_random.integers(35, 45)), 24.0
        self.light = 0
        return self.draw(), self.info(0)

    def set_prompt(self, text: str | None) -> None:
        self.light = 40 if text == "action 0" else 0

    def step(self, action):
        before = self.x
        self.x += (int(action) % 3 - 1) * 2.0
        reward = float(before < 44.0 <= self.x)
        return self.draw(), reward, not 8 < self.x < WIDTH - 8, False, self.info(int(action))

    def info(self, action: int) -> dict[str, Any]:
        known = {"keypoints": np.array([[self.x, self.y]], np.float32)}
        return {"text": f"action {action}"} | (known if self.gives_keypoints else {})

    def draw(self) -> np.ndarray:
        lit = dot_frame(self.x, self.y).astype(int) + self.light
        return lit.clip(0, 255).astype(np.uint8)


def dot_frame(x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18.0)[..., None]
    ground = np.stack((60 + columns, 100 + rows, np.full_like(rows, 120)), axis=-1)
    return (ground * (1 - disc) + np.array((250, 40, 30)) * disc).astype(np.uint8)


class SwayPolicy:
    def reset(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def act(self, observation: Any, info: dict[str, Any]) -> int:
        return int(self.rng.integers(3))


def make_policy(name: str) -> SwayPolicy:
    return SwayPolicy()


@pytest.fixture
def dot_world(tmp_path: Path) -> Path:
    """A tiny world with random weights, whose teacher is the dot."""
    for name, kwargs in (("DotTeacher-v0", {}), ("MuteDotTeacher-v0", {"keypoints": False})):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=DotTeacher, kwargs=kwargs)
    return write_dot_world(tmp_path / "dot", env_id="DotTeacher-v0")


def write_dot_world(folder: Path, *, env_id: str) -> Path:
    config = load_preset("tiny")
    data = replace(
        config.data, env_id=env_id, env_kwargs={}, policy_factory="tests.test_evaluate:make_policy"
    )
    make_tiny_world(folder, config=replace(config, data=data))
    # Its start states come from Stage, whose conditioner the dot has not.
    stage = load_world(folder).start_states
    starts = [StartState(latents=s.latents, conditions=s.conditions) for s in stage]
    save_start_states(starts, folder / START_STATES_NAME)
    return folder


def test_a_probe_learns_where_a_dot_is():
    rng = np.random.default_rng(0)
    places = rng.uniform((15, 10), (65, 38), (400, 2)).astype(np.float32)
    frames = np.stack([dot_frame(*place) for place in places])
    keypoints = places[:, None]
    config = ProbeConfig(width=16, train_steps=100, batch_size=12, learning_rate=5e-3)
    probe = train_probe(halve(frames[:350]), keypoints[:350], config)
    made = probe(frames[350:])
    assert keypoint_error(made, keypoints[350:], height=HEIGHT).mean() < 0.03
    still = np.broadcast_to(keypoints[:350].mean(axis=0), made.shape)
    assert keypoint_error(still, keypoints[350:], height=HEIGHT).mean() > 0.2


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([20.0] * 12, 1),
        ([10.0, 15.0, *[20.0] * 10], 3),
        ([19.5, 12.0, *[20.0] * 10], 3),
        ([10.0, *[20.0] * 4, 18.5, *[20.0] * 10], 7),
    ],
)
def test_a_scene_has_settled_once_it_never_falls_back(curve, step):
    assert settled_step(np.array(curve)) == step


def test_training_seeds_are_refused():
    data = load_preset("tiny").data
    env = HeldOut(DotTeacher(), data)
    for seed in (0, 10_000, None):
        env.reset(seed=seed)
    with pytest.raises(ValueError, match="is a training seed"):
        env.reset(seed=data.first_seed + 1)


def test_a_report_is_valid_json_and_markdown(tmp_path):
    section = Section(
        title="Next frame",
        method="How.",
        values={"psnr": np.float32(29.5), "other": math.nan, "list": np.arange(2)},
        tables=(Table(columns=("a", "b"), rows=(("x", 1.0), ("y", math.nan))),),
        pictures=("curve.png",),
    )
    failed = Section(title="Speed", values={}, status="failed", reason="no env")
    sections = {"next_frame": section.to_dict(), "speed": failed.to_dict()}
    write_report({"subject": {"world": "w"}, "sections": sections}, tmp_path)
    report = read_report(tmp_path)
    values = report["sections"]["next_frame"]["values"]
    assert values == {"psnr": 29.5, "other": None, "list": [0, 1]}
    text = (tmp_path / "evaluation.md").read_text()
    row = "| next-frame PSNR against the teacher | 29.50 dB | 30.50 dB | 33.00 dB | short |"
    assert row in text
    assert "| y | - |" in text
    assert "**failed**: no env" in text
    assert "![curve.png](curve.png)" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert read_report(tmp_path / "nowhere") is None


def test_goals_are_of_sections_that_there_are_and_know_which_way_is_better():
    assert {goal.section for goal in GOALS} <= set(command.SECTIONS)
    goals = {(goal.section, goal.value): goal for goal in GOALS}
    psnr_goal, error = goals["autoencoder", "psnr"], goals["pose", "error_percent"]
    assert [psnr_goal.verdict(value) for value in (34, 36, 38)] == ["short", "reached", "beyond"]
    assert [error.verdict(value) for value in (0.9, 0.7, 0.6)] == ["short", "reached", "beyond"]
    assert goals["games", "leap_right_coins_ratio"].verdict(1.4) == "too much"


def test_the_command_measures_a_tiny_world(dot_world, tmp_path):
    output = tmp_path / "eval"
    arguments = ["--world", str(dot_world), "--output", str(output), "--quick", "--trust"]
    assert command.main(arguments) == 0
    report = json.loads((output / "evaluation.json").read_text())
    sections = report["sections"]
    assert list(sections) == list(command.SECTIONS)
    # The dot's teacher tells of no things, mouth, weather and camera.
    skipped = {name for name, section in sections.items() if section["status"] == "skipped"}
    assert skipped == {"things", "voice", "gestures", "weather", "revisit"}
    assert {section["status"] for section in sections.values()} == {"ok", "skipped"}
    for section in sections.values():
        assert all((output / name).is_file() for name in section["pictures"])
    values = {name: section["values"] for name, section in sections.items()}
    assert values["autoencoder"]["latent_bytes"] == 15 * 32 * 2
    # Random weights draw nonsense: the true frame's own baselines must be far ahead of them.
    assert values["next_frame"]["psnr"] < values["next_frame"]["repeat_psnr"]
    horizon = values["horizon"]
    assert horizon["num_steps"] == 20
    # The dot of another episode is elsewhere, on the same ground.
    assert horizon["psnr_10"] < horizon["other_psnr_10"] < horizon["previous_psnr_10"]
    assert 0 < values["pose"]["probe_error_percent"] < 50
    assert values["sharpness"]["ratio"] > 0
    stillness = values["stillness"]
    assert stillness["psnr_20"] < stillness["teacher_psnr_20"]
    assert stillness["psnr_30"] < stillness["teacher_psnr_30"]
    # Words made the teacher lighter by 40, and the dot moved a little.
    prompts = values["prompts"]
    light = 20 * math.log10(255 / 40)
    assert light - 3 < prompts["held_psnr_1"] < light + 0.2
    assert prompts["psnr_12"] < prompts["held_psnr_12"]
    assert values["speed"]["median_ms"] > 0
    outcomes = values["outcomes"]
    assert outcomes["num_steps"] > 0
    assert 0 <= outcomes["reward_hits"] <= outcomes["reward_positives"]
    assert values["games"]["random_teacher_steps"] > 0


def test_what_fails_fails_its_sections_only(dot_world, tmp_path, monkeypatch):
    output = tmp_path / "eval"
    common = ["--world", str(dot_world), "--output", str(output), "--quick", "--trust"]
    assert command.main([*common, "--sections", "autoencoder"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Study, "make_world_env", lambda _: gymnasium.make("NoSuchWorld-v0"))
        assert command.main([*common, "--sections", "speed,next_frame", "--episodes", "2"]) == 1
    sections = json.loads((output / "evaluation.json").read_text())["sections"]
    # Other settings, so the first report's section is not mixed in.
    assert list(sections) == ["next_frame", "speed"]
    assert sections["next_frame"]["status"] == "ok"
    assert sections["speed"]["status"] == "failed"
    assert "NoSuchWorld" in sections["speed"]["reason"]
    assert command.main([*common, "--sections", "autoencoder"]) == 0
    assert command.main([*common, "--sections", "outcomes"]) == 0
    sections = json.loads((output / "evaluation.json").read_text())["sections"]
    assert list(sections) == ["autoencoder", "outcomes"]


def test_a_teacher_without_keypoints_skips_the_pose(dot_world, tmp_path):
    mute = write_dot_world(tmp_path / "mute", env_id="MuteDotTeacher-v0")
    arguments = ["--world", str(mute), "--output", str(tmp_path / "eval"), "--quick", "--trust"]
    assert command.main([*arguments, "--sections", "pose"]) == 0
    text = (tmp_path / "eval" / "evaluation.md").read_text()
    assert "**skipped**" in text
    assert "keypoints" in text
    assert "| pose error" not in text
