"""A person at the window as the policy of a foreign teacher."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.human import FIRST_HUMAN_SEED, open_human_teacher
from midas_world.commands.cli import main
from midas_world.config import ActionConfig, TeacherConfig, load_preset, save_config
from midas_world.data.episodes import Episode, iter_episodes, list_episodes

DISC = "tests.disc_env:Fake/Disc-v0"
STAY, RUN = 0, 1


@pytest.fixture
def preset(tmp_path) -> Path:
    """A preset of the disc, whose run ends after nine steps; pieces hold six."""
    actions = {"stay": ActionConfig(value=1), "run": ActionConfig(value=2, keys=("right",))}
    config = load_preset("tiny")
    data = dataclasses.replace(
        config.data, env_id=DISC, env_kwargs={}, teacher=TeacherConfig(actions=actions), num_steps=6
    )
    path = tmp_path / "disc.yaml"
    save_config(dataclasses.replace(config, data=data), path)
    return path


@pytest.fixture
def game(preset):
    game = opened(preset)
    yield game
    game.close()


def opened(preset: Path) -> Game:
    folder = preset.parent / "train"
    return Game(open_human_teacher(str(preset), folder=folder, trust=True), seed=0)


def kept(preset: Path) -> list[Episode]:
    return list(iter_episodes(preset.parent / "train"))


def test_play_becomes_episodes_of_the_usual_length(preset, game):
    game.reset()
    frames = [game.step(RUN).frame for _ in range(9)]
    assert game.is_over
    game.reset_to_next_start()
    game.step(STAY)  # too short to keep
    game.close()
    first, second = kept(preset)
    assert [episode.num_steps for episode in (first, second)] == [6, 3]
    np.testing.assert_array_equal(first.actions, [RUN] * 6)
    assert (first.truncated[-1], first.terminated[-1]) == (True, False)
    assert (second.truncated[-1], second.terminated[-1]) == (False, True)
    assert first.text[1] == "x 21, run"
    for episode in (first, second):
        assert (episode.metadata.seed, episode.metadata.policy) == (FIRST_HUMAN_SEED, "player")
        assert episode.metadata.details["action_names"] == ["stay", "run"]
    # H.264 changes colours, but not by much.
    shown = np.concatenate([first.frames[1:], second.frames[1:]]).astype(int)
    assert np.abs(shown - np.stack(frames)).mean() < 6


def test_what_was_taken_back_is_not_kept(preset, game):
    game.reset()
    game.step(RUN)
    goal = game.snapshot(game.step(RUN))
    for _ in range(6):
        game.step(STAY)
    game.restore(goal)
    for _ in range(2):
        game.step(STAY)
    game.close()
    (episode,) = kept(preset)
    np.testing.assert_array_equal(episode.actions, [RUN, RUN, STAY, STAY])


def test_a_finished_try_stays_and_another_day_begins_with_new_seeds(preset, game):
    for _ in range(2):  # the same seed again, after its end
        game.reset()
        while not game.is_over:
            game.step(RUN)
    game.close()
    assert len(kept(preset)) == 4
    again = opened(preset)
    again.reset()
    for _ in range(3):
        again.step(STAY)
    again.close()
    assert kept(preset)[-1].metadata.seed == FIRST_HUMAN_SEED + 1


def test_an_episode_that_cannot_be_written_is_told(preset, game):
    (preset.parent / "train").write_text("a file where the folder should be")
    game.reset()
    game.step(RUN)
    game.step(RUN)
    with pytest.raises(OSError, match="train"):
        game.close()
    (preset.parent / "train").unlink()


def test_the_window_command_plays_a_preset_and_keeps_it(preset, capsys):
    folder = preset.parent / "train"
    words = ["--teacher", str(preset), "--headless", "--steps", "20", "--seed", "2", "--trust"]
    assert play.main([*words, "--episodes", str(folder)]) == 0
    assert f"{DISC} (the teacher)" in capsys.readouterr().out
    assert sum(episode.num_steps for episode in kept(preset)) <= 20
    assert kept(preset)[0].metadata.seed == FIRST_HUMAN_SEED + 2


def test_collect_by_a_human_opens_the_window(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(play, "main", lambda words: opened.append(words) or 0)
    data = tmp_path / "mine"
    command = ["collect", "--env", DISC, "--policy", "human", "--data", str(data)]
    assert main([*command, "--preset", "tiny", "--conditions", "action"]) == 0
    words = ["--teacher", f"{data}/mine.yaml", "--episodes", f"{data}/train", "--trust"]
    assert opened == [words]
    assert load_preset(str(data / "mine.yaml")).data.env_id == DISC
    assert not data.joinpath("train").exists() or not list_episodes(data / "train")
