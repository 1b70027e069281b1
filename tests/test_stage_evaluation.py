"""The sections that Stage has a meaning for, on a small world of its size with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from envs.stage.speech import NUM_MELS
from midas_world.config import load_preset
from midas_world.evaluate import command
from midas_world.evaluate.sections.weather import changes
from midas_world.evaluate.study import Study
from midas_world.evaluate.voices import new_sentences
from midas_world.world import load_world
from tests.fakes import make_tiny_world

SIZE = (
    *("world.height=192", "world.width=320", "world.token_block=8", "data.env_kwargs.scale=1"),
    "world.conditions.camera.loop=1600",
)


@pytest.fixture(scope="module")
def stage_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage") / "world"
    return make_tiny_world(folder, config=load_preset("tiny", SIZE))


def test_a_world_of_stage_is_measured_against_it(stage_world, tmp_path):
    names = ["things", "games", "voice", "gestures", "weather", "revisit"]
    arguments = ["--world", str(stage_world), "--output", str(tmp_path), "--quick"]
    assert command.main([*arguments, "--sections", ",".join(names)]) == 0
    sections = json.loads((tmp_path / "evaluation.json").read_text())["sections"]
    assert {section["status"] for section in sections.values()} == {"ok"}
    values = {name: section["values"] for name, section in sections.items()}
    for section in sections.values():
        assert all((tmp_path / name).is_file() for name in section["pictures"])
    # Random weights draw no things and no rain that is the teacher's.
    assert values["things"]["num_things_1"] > 0
    assert abs(values["things"]["correlation_5"]) < 0.5
    assert values["things"]["teacher_appeared"] is not None
    assert abs(values["weather"]["rain_correlation"]) < 0.3
    assert values["weather"]["rain_energy"] > 0
    assert values["voice"]["num_sentences"] == 4  # two of them new
    assert {"correlation_new", "correlation_fi", "correlation_nl"} <= set(values["voice"])
    # The probe saw next to nothing, but its own reading of the teacher is there to compare with.
    followers = {"gestures_correlation", "nods_probe_correlation", "looks_probe_correlation"}
    assert followers <= set(values["gestures"])
    assert values["revisit"]["psnr"] < 20
    assert values["games"]["leap_right_teacher_steps"] == 24


def test_a_listener_hears_so_many_steps_of_a_sentence_and_then_nods_and_looks_away(
    stage_world, tmp_path
):
    study = Study(load_world(stage_world), command.QUICK, tmp_path)
    said = new_sentences(study, "other", num_steps=44)[0]
    moments = said.moments[-44:]
    heard = [bool(moment.conditions.audio[NUM_MELS:].any()) for moment in moments]
    assert heard == [True] * 12 + [False] * 32
    gaze = [moment.info["gaze"] for moment in moments]
    assert max(gaze) > 0.8
    assert gaze[-1] < 0.1
    heads = [moment.info["keypoints"][0, 1] for moment in moments]
    assert max(heads[12:24]) - max(heads[:12]) > 2.0


def test_what_changes_is_measured_away_from_the_character():
    frames = np.zeros((3, 8, 100, 3), np.uint8)
    frames[1, :, 50] = 255
    frames[2, 4, 5] = 255
    found = changes(frames, clear_of=np.array([[50.0, 4.0]]))
    assert found.shape == (2, 8, 100)
    assert not found[0].any()
    assert np.argwhere(found[1]).tolist() == [[4, 5]]
