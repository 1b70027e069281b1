"""From a recording to a world that can be played, without any teacher: every command in turn."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.opening import NO_GAME, open_world
from envs.play.voice.voices import FileVoice, LiveVoices
from midas_world.commands.cli import main
from midas_world.data.sound import write_opus
from midas_world.world import load_world
from tests.recordings import MAKERS, NAMES, OPTIONS, import_to, picture, write_film, write_table

FEW = [
    f"train_{stage}.optimizer.{word}"
    for stage in ("autoencoder", "dynamics")
    for word in ("train_steps=2", "warmup_steps=1", "batch_size=2", "bf16=false")
]
KEYS = "actions: {idle: {}, left: {keys: [a]}, right: {keys: [d, left shift]}}"


def make_world(folder: Path, source: Path, *words: str, more: Sequence[Sequence[str]] = ()) -> Path:
    """Import a source, then more, with their options; train and pack as the last lines say."""
    data, world = folder / "my game", folder / "worlds" / "mine"
    assert import_to(data, source, *words, *FEW, "--steps", "16") == 0
    for others in more:
        assert import_to(data, *others, "--add", "--steps", "16") == 0
    preset = ["--preset", str(data / "my game.yaml"), "--output", str(folder / "run")]
    assert main(["train", "all", *preset]) == 0
    assert main(["pack", *preset, "--world", str(world)]) == 0
    return world


@pytest.mark.parametrize("kinds", ["film", "session", "pictures minari lerobot"])
def test_recordings_of_every_kind_become_a_world(kinds, tmp_path, capsys):
    (tmp_path / "keys.yaml").write_text(KEYS)
    named = ["--keymap", str(tmp_path / "keys.yaml")]
    options = OPTIONS | {
        "film": named,
        "pictures": OPTIONS["pictures"] + named,
        "session": ["--pose", "--sound"],
    }
    sources = []
    for kind in kinds.split():
        (tmp_path / kind).mkdir()
        sources.append([str(MAKERS[kind](tmp_path / kind)), *options.get(kind, [])])
    world = make_world(tmp_path, *sources[0], more=sources[1:])
    loaded = load_world(world)
    assert 40 < len(loaded.start_states) <= 48
    assert loaded.keymap.actions == NAMES
    if kinds != "session":
        assert loaded.keymap.keys == {"right": ["d", "left shift"], "left": ["a"]}
    command = ["eval", "--world", str(world), "--quick", "--output", str(tmp_path / "report")]
    command += ["--sections", "autoencoder,next_frame,horizon,outcomes,sharpness"]
    assert main([*command, "--data", str(tmp_path / "my game")]) == 0
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    sections = report["sections"]
    assert sections.pop("sharpness")["reason"] == (
        "the world learned from recordings: nobody can play its game"
    )
    assert {section["status"] for section in sections.values()} == {"ok"}
    assert sections["next_frame"]["values"]["num_frames"] > 0
    assert play.main(["--world", str(world), "--headless", "--steps", "4"]) == 0
    assert "4 steps" in capsys.readouterr().out


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> Path:
    """A world of a film with sound, keypoints and keys."""
    folder = tmp_path_factory.mktemp("talking")
    sound = (3000 * np.sin(np.arange(16_000 * 6) / 9)).astype(np.int16)
    film = write_film(folder / "head.mkv", [picture(n) for n in range(120)], sound=sound)
    write_table(folder / "head.csv", [{"keys": "left" * (n % 2)} for n in range(120)])
    points = [{"x0": 80 + n % 9, "y0": 40, "x1": 80, "y1": 60} for n in range(120)]
    table = str(write_table(folder / "points.csv", points))
    return make_world(folder, film, "--sound", "--keypoints", table, "--text", "a head")


def test_a_talking_head_hears_a_live_voice(talking):
    # After two train steps it would end any game at once.
    never = {"end": lambda outlook: np.zeros(len(outlook.step), bool)}
    env = gym.make("midas/Stage-v0", world=str(talking), backend="torch", **never)
    _, info = env.reset(seed=0, options={"prompt": "a head"})
    assert info["text"].startswith("a head, ")
    voice = np.linspace(0, 1, 20, dtype=np.float32)
    env.unwrapped.set_voices(voice, None)
    info = env.step(1)[4]
    np.testing.assert_allclose(info["audio"][:20], voice)
    assert not info["audio"][20:].any()
    assert "pose" not in info  # nobody gives one at play
    assert not env.step(1)[4]["audio"].any()
    env.close()


def test_a_voice_from_a_file_is_heard_while_it_is_played(talking, tmp_path):
    sound = (9000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
    write_opus(tmp_path / "voice.ogg", sound, bits_per_second=32_000)
    playable = open_world(talking, backend="torch")
    with contextlib.closing(LiveVoices(FileVoice(tmp_path / "voice.ogg"))) as voices:
        game = Game(playable, seed=1, voices=voices)
        game.reset()
        game.step(0)
        assert game.info["audio"][:20].max() > 0.3
    playable.env.close()


def test_imports_are_packed_into_shards_and_train_from_there(talking, tmp_path):
    data = talking.parents[1] / "my game"
    assert main(["shards", "pack", str(data), str(tmp_path / "shards")]) == 0
    command = ["train", "autoencoder", "--preset", str(data / "my game.yaml")]
    command += ["--data", str(tmp_path / "shards"), "--output", str(tmp_path / "run")]
    assert main(command) == 0


def test_f2_says_in_words_that_there_is_no_game(talking):
    playable = open_world(talking, backend="torch")
    assert playable.teacher is None
    assert playable.no_teacher == NO_GAME
    playable.env.close()


def test_whoever_needs_a_game_is_told_that_there_is_none(talking, capsys):
    data = talking.parents[1] / "my game"
    assert main(["collect", "--preset", str(data / "my game.yaml")]) == 2
    assert play.main(["--teacher", str(data / "my game.yaml"), "--headless"]) == 2
    assert capsys.readouterr().err.count("there is no teacher to play or to collect from") == 2
    assert main(["eval", "--world", str(talking), "--sections", "next_frame", "--quick"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no held-out ones are in data/mine/validation: name their folder with --data" in line
