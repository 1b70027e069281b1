"""The examples run end to end on the tiny world, go on where they were, and count rightly."""

import json

import gymnasium as gym
import minari
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from engine import make_engine
from envs.stage.controller import ACTIONS
from envs.world.env import WorldEnv
from examples import games as learning
from examples import offline, peers, rank, report, train_ppo
from examples.actions import ACTION_INDICES
from examples.ppo import make_ppo
from midas_world.checkpoint import save_tensors

LEAP = ACTIONS.index("leap_right")


def run(returns: list[float], ended: list[bool] | None = None) -> dict:
    ended = ended or [False] * len(returns)
    return {"points": [{"steps": 0, "returns": returns, "costs": [1.0, 2.0], "ended": ended}]}


# Games for learners


def test_play_counts_one_episode_per_seed_whatever_the_number_of_games():
    config = learning.GameConfig(num_games=2, frame_skip=2, horizon=5)
    games = learning.make_games(config.teacher_id, config)
    leap = learning.choose_always("leap_right")
    played = learning.play(games, leap, seeds=range(1, 4))
    assert played.lengths == (3, 3, 3)
    assert played.ended == (False, False, False)
    assert played.costs == (0.0, 0.0, 0.0)
    games.close()


def test_returns_and_hits_are_the_environment_s():
    config = learning.GameConfig(num_games=1, horizon=90)
    games = learning.make_games(config.teacher_id, config)
    played = learning.play(games, learning.choose_always("leap_right"), seeds=[2])
    env = gym.make(config.teacher_id, horizon=90)
    env.reset(seed=2)
    total, cost, is_over = 0.0, 0.0, False
    while not is_over:
        _, reward, is_over, _, info = env.step(LEAP)
        total, cost = total + reward, cost + info["cost"]
    assert (total, cost) == (4.0, 3.0)
    assert (played.returns, played.costs, played.ended) == ((total,), (cost,), (True,))
    games.close()


def test_pictures_are_means_of_blocks():
    frames = np.zeros((1, 96, 160, 3), np.uint8)
    frames[0, :2, :2, 1] = 100
    frames[0, 0, 0, 2] = 100
    small = learning.small_pictures(frames)
    assert small.shape == (1, 48, 80, 3)
    assert small[0, 0, 0].tolist() == [0, 100, 25]


def test_the_dream_shows_what_the_world_draws(tiny_world):
    config = learning.GameConfig(num_games=1, frame_skip=2, horizon=4, num_stacked=2)
    engine = make_engine(tiny_world)
    dream = learning.make_games(config.world_id, config, world=tiny_world, engine=engine)
    env = WorldEnv(tiny_world, engine=engine)
    first = learning.small_pictures(env.reset(seed=5)[0][None])
    dream.seed(5)
    np.testing.assert_array_equal(dream.reset()[..., 3:], first)
    env.step(ACTION_INDICES[2])
    second = learning.small_pictures(env.step(ACTION_INDICES[2])[0][None])
    seen = dream.step(np.array([2]))[0]
    np.testing.assert_array_equal(seen, np.concatenate((first, second), -1))
    dream.close()


# The table


def test_the_table_counts_gains_from_random_and_shares_of_the_teacher_s():
    runs = {
        "random": [run([1.0, 3.0]), run([2.0, 2.0])],
        "teacher": [run([10.0]), run([14.0], [True])],
        "dream": [run([9.0, 11.0], [True, False]), run([10.0, 10.0])],
    }
    dreams = {"random": [run([2.5])], "dream": [run([20.0, 40.0], [True, False])]}
    rows = {row.policy: row for row in report.make_rows(runs, dreams)}
    assert rows["random"].gain == 0.0
    assert rows["teacher"].gain == 10.0
    assert rows["teacher"].survived == 0.5
    assert rows["dream"].returns == (10.0, 10.0)
    assert rows["dream"].share == pytest.approx(0.8)
    assert rows["dream"].survived == 0.75
    table = report.make_table(list(rows.values()))
    assert "| 12.00 ± 2.83 | 1.5 | 50% | +10.00 | 100% | - |" in table
    assert "| 10.00 ± 0.00 | 1.5 | 75% | +8.00 | 80% | 30.00 ± 0.00 |" in table
    text = report.verdict(list(rows.values()))
    assert "keeps 80% of the gain" in text
    assert "gives the dream policy 30.00, the teacher 10.00: +20.00" in text
    assert "survives 50% of episodes there, 75% in the teacher" in text


# The experiment


def test_dreams_begin_where_games_do(tiny_world):
    starts = learning.first_moments(make_engine(tiny_world), "midas/StageCoinsTeacher-v0", 2)
    env = gym.make("midas/StageTeacher-v0")
    for seed, start in enumerate(starts, 800_000):
        pose, last = env.reset(seed=seed)[1]["pose"], start.conditions[-1].pose
        assert last[31] == 0.0  # stands
        assert (last[30], last[36]) == (pose[30], pose[36])  # faces and is where the game begins
        assert len(start.conditions) == tiny_world.config.world.backbone.context_frames


def test_the_experiment_runs_and_goes_on_where_it_was(tiny_folder, tmp_path, monkeypatch, capsys):
    dreams = []

    def make_games(env_id, config, **options):
        if "Teacher" not in env_id:
            (stands,) = {start.conditions[-1].pose[31] == 0.0 for start in options["start_states"]}
            dreams.append((config.horizon, config.num_games, stands))
        return learning.make_games(env_id, config, **options)

    monkeypatch.setattr(train_ppo, "make_games", make_games)
    arguments = ["--world", str(tiny_folder), "--output", str(tmp_path), "--device", "cpu"]
    arguments += ["--seeds", "1", "--steps", "16", "--envs", "2", "--horizon", "8"]
    arguments += ["--points", "1", "--episodes", "1", "--final-episodes", "2"]
    train_ppo.main(arguments)
    # Of one horizon, from where games begin; no more of them than are looked at.
    assert dreams == [(8, 2, True), (8, 1, True)]
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"table.md", "curves.png", "results.json", "dream-0.safetensors"}
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["runs"]) == {"random", "blind", "expert", "teacher", "dream"}
    assert set(results["dreams"]) == {"random", "blind", "teacher", "dream"}
    curve = results["runs"]["dream"][0]["points"]
    assert [len(point["returns"]) for point in curve] == [1, 2]
    assert curve[0]["steps"] == 0
    table = capsys.readouterr().out
    assert "PPO trained in the dream" in table

    runs = [path for path in tmp_path.glob("*-0*") if path.suffix in (".json", ".safetensors")]
    times = {path: path.stat().st_mtime_ns for path in runs}
    (tmp_path / "dream-0-in-dream.json").unlink()
    train_ppo.main(arguments)
    assert capsys.readouterr().out == table
    again = {path: path.stat().st_mtime_ns for path in runs}
    changed = {path.name for path in runs if again[path] != times[path]}
    assert changed == {"dream-0-in-dream.json"}
    with pytest.raises(ValueError, match="made with other settings"):
        train_ppo.main([*arguments, "--final-episodes", "3"])


# The order of policies, and datasets


def test_the_rank_correlation_is_spearman_s():
    assert rank.rank_correlation([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1.0)
    assert rank.rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # With two that share a rank, as scipy.stats.spearmanr has it.
    assert rank.rank_correlation([1, 2, 2, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.66688593)
    assert rank.rank_correlation([1, 2], [3, 3]) == 0.0
    low, high = rank.interval(range(20), [*range(10), *range(19, 9, -1)], seed=0)
    assert (
        0.0 < low < rank.rank_correlation(range(20), [*range(10), *range(19, 9, -1)]) < high < 1.0
    )


def test_policies_of_both_sides_are_ranked(tiny_folder, tmp_path, capsys):
    arguments = ["--world", str(tiny_folder), "--output", str(tmp_path), "--episodes", "1"]
    rank.main([*arguments, "--horizon", "8"])
    table = (tmp_path / "rank.md").read_text()
    assert table.count("\n| ") == 26  # below the head, 25 policies
    assert "| leap_right 67% |" in table
    assert "Rank correlation of 25 policies: " in table
    assert "of the teacher with itself on other seeds: " in table


def test_games_that_are_ranked_begin_as_dreams_do(tiny_world):
    config = learning.GameConfig(num_games=3, horizon=8)
    teacher, dream = rank.make_sides(config, tiny_world, make_engine(tiny_world))
    poses = []
    for side, seed in (
        (dream, rank.FIRST_SEED),
        (teacher, rank.FIRST_SEED),
        (teacher, rank.FIRST_SEED + 3),
    ):
        side.many.seed(seed)
        side.many.reset()
        poses.append(np.stack([info["pose"] for info in side.many.unwrapped.reset_infos]))
        alone = [side.one.reset(seed=seed + game)[1]["pose"] for game in range(3)]
        np.testing.assert_array_equal(alone, poses[-1])
    np.testing.assert_allclose(poses[1], poses[0], atol=1e-6)
    np.testing.assert_array_equal(poses[2], poses[1])
    assert (poses[0][:, 31] != 0.0).any()  # some run


def test_a_distracted_expert_holds_what_chance_chose():
    class Expert:
        def reset(self, rng): ...

        def act(self, observation, info):
            return -1

    for share, least, most in ((1.0, 1.0, 1.0), (0.6, 0.5, 0.7), (0.0, 0.0, 0.0)):
        policy = rank.Distracted(Expert(), share=share, frame_skip=4)
        policy.reset(np.random.default_rng(0))
        taken = np.array([policy.act(np.zeros(1), {}) for _ in range(1600)]).reshape(-1, 4)
        assert (taken == taken[:, :1]).all()
        assert least <= (taken == -1).mean() <= most
        assert set(taken.flat) <= {-1, *ACTION_INDICES}


def test_what_the_ranks_say_is_of_the_right_columns():
    first, again, dream = (1.0, 2.0, 3.0), (1.0, 3.0, 2.0), (3.0, 2.0, 1.0)
    text = rank.report([("abc"[i], first[i], again[i], dream[i], 4.0, 3.0) for i in range(3)])
    assert text.index("| c | 3.00 | 2.00 | 1.00 | 4.00 | 3.00 |") < text.index("| b |")
    assert "of 3 policies: -1.00" in text
    assert "on other seeds: 0.50. The dream's hits are 75% of the teacher's." in text


# Minari's collector leaves its folder to be cleaned up.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_datasets_of_both_sides_have_reference_scores(tiny_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("jax")  # which Minari's collector needs
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")
    config = learning.GameConfig(num_games=1, horizon=8)
    games = learning.make_games(
        config.world_id, config, world=str(tiny_folder), backend="torch:float32"
    )
    model = make_ppo(games, config, num_steps=8, seed=0, device="cpu")
    weights = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    save_tensors(weights, tmp_path / "dream-0.safetensors")
    games.close()
    arguments = ["--world", str(tiny_folder), "--ppo", str(tmp_path)]
    arguments += ["--output", str(tmp_path / "sets"), "--episodes", "2", "--horizon", "9"]
    offline.main(arguments)
    for side in ("teacher", "dream"):
        for kind in ("random", "mixed", "expert"):
            dataset = minari.load_dataset(f"stage/{side}-{kind}-v0")
            assert (dataset.total_episodes, dataset.total_steps) == (2, 18)
            assert dataset.storage.metadata["algorithm_name"] == kind
            assert {"ref_min_score", "ref_max_score"} <= dataset.storage.metadata.keys()
            assert dataset.recover_environment().observation_space == dataset.observation_space
            assert len(dataset[0].infos["cost"]) == 10
    random, mixed, expert = (
        [list(episode.actions) for episode in minari.load_dataset(f"stage/dream-{kind}-v0")]
        for kind in ("random", "mixed", "expert")
    )
    assert mixed == [random[0], expert[1]]


# Beside others


def test_a_step_is_timed_in_a_process_of_its_own(tiny_folder, capfd):
    peers.main(["--world", str(tiny_folder), "--steps", "1"])
    row = capfd.readouterr().out.splitlines()[-1].split(" | ")
    assert row[0] == "| midas-world"
    assert row[1] == "48x80"
    assert float(row[2]) > 0
    assert row[3:] == ["1.00", "1.00 |"]
