import argparse
import logging
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from examples.racing_policy import make_policy as make_driver
from midas_world.commands.cli import main
from midas_world.commands.overrides import parse
from midas_world.config import ProjectConfig, load_preset
from midas_world.data.episodes import iter_episodes, save_episode
from midas_world.teachers.collected import look_at
from midas_world.teachers.env import make_teacher
from midas_world.teachers.options import add_teacher_options
from midas_world.teachers.project import (
    fitting_size,
    keep_preset,
    name_of,
    parse_kwargs,
    project_for,
)
from tests.training import make_episode

DISC = "tests.disc_env:Fake/Disc-v0"


def project(words: str, *, env_id: str = DISC, preset: str = "tiny", **others) -> ProjectConfig:
    """Return the project of an env under the command's words."""
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    settings = {"preset": preset, "overrides": [], "max_tokens": 16, "is_to_play": True} | others
    return project_for(env_id, parser.parse_args(words.split()), **settings)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        ((240, 320), (96, 128)),
        ((96, 96), (128, 128)),
        ((400, 600), (96, 160)),
        ((210, 160), (128, 96)),
    ],
)
def test_a_frame_shape_gets_a_grid_that_fits(frame, size):
    assert fitting_size(frame, step=32, max_tokens=16) == size


def test_names_and_keyword_arguments_are_read():
    assert name_of("envs:midas/DoomChase-v0") == "doomchase"
    assert name_of("CarRacing-v3") == "carracing"
    words = ["continuous=false", "speed=2", "name=up and away"]
    assert parse_kwargs(words) == {"continuous": False, "speed": 2, "name": "up and away"}
    with pytest.raises(ValueError, match="words such as continuous=false"):
        parse_kwargs(["fast"])
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    options, overrides = parse(parser, ["--env-kwargs", "a=1", "data.num_steps=3"])
    assert (options.env_kwargs, overrides) == (["a=1"], ["data.num_steps=3"])


def test_a_project_fits_its_env(caplog):
    caplog.set_level(logging.INFO)
    words = "--steps 12 --policy sticky=2 random=1"
    config = project(words, preset="dream")
    world, data = config.world, config.data
    assert (world.height, world.width, world.fps) == (96, 160, 20)
    assert (world.conditions.pose_size, world.conditions.audio_size) == (3, 0)
    assert data.teacher.conditions == "action"
    assert "not used: the env's own pose" in caplog.text
    assert list(data.teacher.actions) == ["action_0", "action_1", "action_2"]
    assert data.policy_weights == {"sticky": 2.0, "random": 1.0}
    # The disc's episodes end after 9 steps: they must hold more than a context.
    assert world.backbone.context_frames == 4
    for stage in (config.train_autoencoder, config.train_dynamics):
        assert stage.crop_size == 96
    assert world.motion.flow > 0
    assert not world.motion.num_copies
    kept = project(words, preset="dream", is_to_play=False)
    assert (kept.data.teacher.conditions, kept.world.conditions.pose_size) == ("info", 2)
    assert kept.world.conditions.drop_rate > 0


def test_what_a_presets_own_teacher_declares_is_left_out():
    overrides = ["world.token_block=2", "world.head={widths: [8, 8], depths: [1, 1]}"]
    config = project("--size 48x64", preset="stage", overrides=overrides)
    world = config.world
    assert not world.scenery.width
    assert not world.entries.num_classes
    assert not world.conditions.camera.is_declared
    assert not world.conditions.limbs
    assert world.lives == 0
    assert world.motion == load_preset("dream").world.motion
    assert config.train_autoencoder.crop_size == 48


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--policy human", "collect --env ID --policy human"),
        ("--policy sticky=much", "NAME=WEIGHT, got 'sticky=much'"),
        ("--policy a:b random", "plays alone"),
        ("--policy a:b", 'policy_factory must be "module:function"'),
        ("--env-kwargs colour=3", "cannot be made.*colour"),
        ("--conditions info --keymap nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_options_that_cannot_be_used_are_named(words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        project(words)


def test_a_data_folder_keeps_its_teacher(tmp_path):
    config = load_preset("tiny")
    path = tmp_path / "mine.yaml"
    keep_preset(config, path)
    keep_preset(load_preset("tiny", ["data.num_episodes=9"]), path)
    assert load_preset(str(path)).data.num_episodes == 9
    with pytest.raises(ValueError, match="begun with another env_id"):
        keep_preset(load_preset("tiny", ["data.env_id=Other-v0"]), path)


def test_collect_adapts_an_env_and_writes_its_preset(tmp_path, capsys):
    keymap = tmp_path / "keys.yaml"
    keymap.write_text("actions: {stay: {value: 1}, run: {value: 2, keys: [right]}}")
    data = tmp_path / "disc"
    command = ["collect", "--env", DISC, "--data", str(data), "--keymap", str(keymap)]
    command += ["--size", "48x64", "--preset", "tiny", "--episodes", "1", "--steps", "6"]
    command += ["--workers", "1", "--codec", "raw", "--conditions", "action"]
    command += ["data.num_validation_episodes=1"]
    assert main(command) == 0
    assert "run (right)" in capsys.readouterr().out
    (episode,) = iter_episodes(data / "train")
    assert episode.frames.shape[1:] == (48, 64, 3)
    assert episode.metadata.details["action_names"] == ["stay", "run"]
    assert set(episode.text) <= {f"x {x}, {word}" for x in range(50) for word in ("stay", "run")}
    config = load_preset(str(data / "disc.yaml"))
    env = make_teacher(config.data)
    assert env.reset(seed=0)[0].shape == (48, 64, 3)
    assert main(["collect", "--size", "48x64"]) == 2


@pytest.mark.parametrize(
    ("rewards", "unit", "limit"),
    [
        ([0.0, 1.0, 0.0, 2.0], 1.0, 2.0),
        ([-0.1] * 20 + [3.2], 0.1, 3.2),  # as CarRacing
        ([0.5, -100.0, 100.0], 0.5, 100.0),  # as LunarLander
        ([0.0, 0.0], 1.0, 20.0),
    ],
)
def test_unit_and_limit_follow_the_data(tmp_path, rewards, unit, limit):
    for seed in (1, 2):
        episode = make_episode(seed)
        filled = np.resize(np.array(rewards, np.float32), episode.rewards.shape)
        episode = replace(episode, rewards=filled)
        save_episode(episode, tmp_path / f"episode-{seed}", codec="raw")
    world = look_at(tmp_path).scale(load_preset("tiny")).world
    assert world.reward_unit == pytest.approx(unit)
    assert world.reward_limit == pytest.approx(limit)


def test_the_car_is_driven_by_its_shipped_key_map():
    pytest.importorskip("Box2D")
    config = project("--steps 3", env_id="CarRacing-v3")
    assert config.data.teacher.actions["gas_left"].keys == ("up", "left")
    assert (config.world.fps, config.data.teacher.repeat) == (25, 2)
    env = make_teacher(config.data)
    frame, info = env.reset(seed=1)
    assert frame.shape == (48, 80, 3)
    names = list(config.data.teacher.actions)
    picture = np.full((96, 96, 3), (100, 200, 100), np.uint8)
    for columns, side in ((slice(0, 30), "left"), (slice(70, 96), "right"), (slice(44, 52), "")):
        road = picture.copy()
        road[:, columns] = 104
        shares = []
        for seed in range(30):
            driver = make_driver("own")
            driver.reset(np.random.default_rng(seed))
            taken = [names[driver.act(road, info)] for _ in range(300)]
            shares.append([name.endswith(side or ("coast", "gas")) for name in taken])
        # Most stay on the road; some leave it later on, as players do.
        early, late = (
            np.array(shares)[:, part].mean(axis=1) for part in (slice(150), slice(150, None))
        )
        assert np.median(late) > 0.8
        assert np.sum(early < 0.75) < np.sum(late < 0.75)
        assert 2 <= np.sum(late < 0.75) <= 10
    env.close()


def test_doom_is_seen_from_behind_and_repeats_itself(here):
    pytest.importorskip("vizdoom")

    def play(env: gymnasium.Env) -> list[np.ndarray]:
        frames = [env.reset(seed=4)[0]]
        frames += [env.step(action)[0] for action in (1, 1, 3, 3, 7)]
        return frames

    env = gymnasium.make("envs:midas/DoomChase-v0")
    first = play(env)
    for _ in range(3):
        env.step(0)
    again = play(env)  # the camera stays behind the marine in a later episode
    np.testing.assert_array_equal(np.stack(first), np.stack(again))
    green = first[0][150:200, 145:175].astype(int)
    assert (green[..., 1] > green[..., 0] + 20).mean() > 0.2  # his armour
    with pytest.raises(ValueError, match="no scenario 'chess'"):
        gymnasium.make("envs:midas/DoomChase-v0", scenario="chess")
    env.close()
    env.close()
    assert not list(Path(here).iterdir())
