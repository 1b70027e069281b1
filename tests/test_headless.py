"""Playing without a window, and the command that starts either."""

import av
import numpy as np
import pygame
import pytest

import play
from envs.picture import NoDisplayError
from envs.play.game.game import Game
from envs.play.headless import parse_actions, read_actions, run_headless
from envs.play.studio.saver import FrameSaver
from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from tests.fakes import CountingEnv, view_of
from tests.sessions import record_steps
from tests.windows import playable

KICK = ACTIONS.index("kick")


def test_actions_are_read_from_lines_commas_and_repeats():
    text = "walk_right x 3\nkick, jump  # twice as high\n\nidle*2\ntalk x2"
    names = [ACTIONS[action] for action in parse_actions(text, ACTIONS)]
    assert names == ["walk_right"] * 3 + ["kick", "jump", "idle", "idle", "talk", "talk"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_actions_may_come_from_any_editor(tmp_path, encoding):
    path = tmp_path / "actions.txt"
    path.write_text("walk_right x 2 # \u043f\nidle", encoding=encoding)
    assert read_actions(path, ACTIONS) == [2, 2, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"walk_right\xff", "is no text in UTF-8 or UTF-16"),
        (b"# nothing\n", "no actions"),
        (b"idle\nwalk_rigth x 3", "line 2: no action 'walk_rigth', did you mean 'walk_right'"),
        (b"walk_right x many", "line 1: 'many' in 'walk_right x many' is no number of steps"),
        (b"idle\nidle * -3", "line 2: '-3' in 'idle [*] -3' is no number of steps"),
        (b"idle x 99999999999", "no number of steps up to 1000000"),
        (b"idle x", "'' in 'idle x' is no number of steps"),
    ],
)
def test_a_file_of_actions_that_cannot_be_read_is_named(tmp_path, data, message):
    (tmp_path / "mine.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_actions(tmp_path / "mine.txt", ACTIONS)
    assert "mine.txt" in str(error.value)


@pytest.mark.parametrize("fps", [0.2, 0.5, 12.5])
def test_a_gif_may_be_slower_than_a_frame_in_two_seconds(tmp_path, fps):
    saver = FrameSaver(tmp_path / "slow.gif", fps=fps, num_frames=3)
    for value in (0, 100, 200):
        saver.add(view_of(np.full((24, 40, 3), value, np.uint8)))
    saver.close()
    with av.open(str(tmp_path / "slow.gif")) as film:
        frames = list(film.decode(video=0))
    assert frames[1].time == pytest.approx(1 / fps, rel=0.02)


def test_headless_run_begins_anew_and_adds_up():
    env = CountingEnv(over_after=4)
    game = Game(playable(env), seed=3, prompt="rain")
    frames = []
    report = run_headless(game, [KICK] * 10, keep=frames.append)
    assert (report.num_steps, report.num_episodes, report.total_reward) == (10, 3, 10.0)
    assert len(frames) == 13
    assert [seed for seed, _ in env.resets] == [3, 4, 5]
    assert env.prompt == "rain"
    assert "10 steps in" in str(report)


def test_next_start_state_follows_the_present_one():
    class Bank(CountingEnv):
        def reset(self, *, seed=None, options=None):
            frame, _ = super().reset(seed=seed, options=options)
            return frame, {"start_state": (options or {"start_state": 2})["start_state"]}

    env = Bank()
    game = Game(playable(env, starts=("",) * 4), seed=0)
    game.reset()
    game.reset_to_next_start()
    game.reset()
    game.reset_to_next_start()
    game.reset_to_next_start()
    starts = [options and options["start_state"] for _, options in env.resets]
    assert starts == [None, 3, 3, 0, 1]


def test_frames_are_saved_as_folder_strip_and_gif(tmp_path):
    rng = np.random.default_rng(0)
    frames = [np.full((24, 40, 3), rng.integers(256, size=3), np.uint8) for _ in range(20)]
    for name in ("folder", "strip.png", "film.gif"):
        saver = FrameSaver(tmp_path / "new" / name, fps=20, num_frames=len(frames))
        for frame in frames:
            saver.add(view_of(frame))
        saver.close()
    assert len(list((tmp_path / "new" / "folder").glob("frame_*.png"))) == 20
    strip = pygame.image.load(tmp_path / "new" / "strip.png")
    assert strip.get_size() == (160, 72)
    assert strip.get_at((0, 0))[:3] == tuple(frames[0][0, 0])
    assert strip.get_at((159, 71))[:3] == tuple(frames[-1][0, 0])
    with av.open(str(tmp_path / "new" / "film.gif")) as film:
        decoded = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(decoded) == 20
    assert np.abs(decoded[7].astype(int) - frames[7]).max() <= 8
    assert not list((tmp_path / "new").glob(".tmp*"))
    with pytest.raises(ValueError, match="--save takes"):
        FrameSaver(tmp_path / "film.avi", fps=20, num_frames=1)
    for name in ("film.gif", "strip.png", "folder"):
        with pytest.raises(ValueError, match="exists already"):
            FrameSaver(tmp_path / "new" / name, fps=20, num_frames=1)


# The command


def test_command_plays_the_teacher_by_a_list_of_actions(tmp_path, capsys):
    actions = tmp_path / "actions.txt"
    actions.write_text("run_right x 3\n")
    command = ["--headless", "--teacher", "--actions", str(actions), "--prompt", "a beach"]
    assert play.main([*command, "--steps", "5", "--save", str(tmp_path / "out.png")]) == 0
    out = capsys.readouterr().out
    assert "5 steps in" in out
    assert "pygame drawing" in out
    assert (tmp_path / "out.png").is_file()


def test_command_says_which_file_of_a_world_is_corrupt(own_world, capsys):
    weights = own_world / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert play.main(["--headless", "--world", str(own_world)]) == 2
    assert "truncated or corrupt" in capsys.readouterr().err
    assert play.main(["--world", str(own_world)]) == 2  # with a window
    assert "truncated or corrupt" in capsys.readouterr().err


def test_without_a_display_the_way_out_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    assert play.main(["--teacher"]) == 2
    assert "use --headless" in capsys.readouterr().err
    record_steps(tmp_path / "session", 1)
    assert play.main(["--replay", str(tmp_path / "session")]) == 2
    assert "midas-world export SESSION --to mp4" in capsys.readouterr().err
    env = StageEnv(render_mode="human")
    with pytest.raises(NoDisplayError, match='with render_mode="rgb_array"'):
        env.reset(seed=0)
