"""Dream to real: train PPO inside a world, and see what it is worth in the game itself.

    python -m examples.train_ppo --output runs/ppo

Trains Stable-Baselines3's PPO in the learned world and, with equal steps, in the teacher, by the
same task and horizon; evaluates both in the teacher, from seeds that neither the world nor the
policies trained on, and in the dream, which begins where games do; and plays a random policy, one
that looks at nothing, and the scripted expert beside them. Every finished run is a file under
`--output`, so a call that was cut goes on where it was, and one with more seeds adds to them.
report.py makes the table and the picture of them.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from engine import Engine, make_engine
from envs.stage.policies import ExpertPolicy
from envs.tasks import TASKS
from examples.report import report
from midas_world.checkpoint import WEIGHTS_NAME, save_tensors
from midas_world.edge import run_command
from midas_world.files import write_whole
from midas_world.packages import needs
from midas_world.world import StartState, World, load_world

with needs("train_ppo", extra="rl", error=SystemExit):
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor

    from examples.games import (
        Choose,
        GameConfig,
        choose_always,
        choose_at_random,
        first_moments,
        make_games,
        play,
        play_alone,
    )
    from examples.ppo import PPO_SETTINGS, ROLLOUT_CHOICES, Evaluate, load_choice, make_ppo

# The world's own episodes have seeds from 1,000,000 on (and 0 to 7 to validate).
EVALUATION_SEED = 500_000
TRAINING_SEED = 700_000
BLIND_ACTION = "leap_right"
NUM_STARTS = 32
POLICIES = ("random", "blind", "expert", "teacher", "dream")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """How long and how often to train and to evaluate.

    Attributes:
        num_steps: Steps of the environment per training, in the dream as in the teacher.
        num_points: Evaluations in the course of one training, the last at its end.
        num_episodes: Episodes of every evaluation but the last, and of those in the dream.
        num_final_episodes: Episodes of the last.
    """

    num_steps: int = 40_000
    num_points: int = 8
    num_episodes: int = 16
    num_final_episodes: int = 64

    def __post_init__(self) -> None:
        """Check that there is something to do."""
        for name, value in asdict(self).items():
            if not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class Experiment:
    """Runs what is not yet under a folder."""

    def __init__(
        self, folder: Path, games: GameConfig, config: ExperimentConfig, world: World, device: str
    ) -> None:
        self.folder = folder
        self.games = games
        self.config = config
        self.world = world
        self._device = device
        self._engine: Engine | None = None
        self._starts: list[StartState] = []
        self._teacher: VecEnv | None = None
        self._dream: VecEnv | None = None
        weights = (world.folder / WEIGHTS_NAME).read_bytes()
        self._dream_settings = {"world": hashlib.sha256(weights).hexdigest(), "starts": NUM_STARTS}
        self._play_settings = {
            "games": asdict(games),
            "num_final_episodes": config.num_final_episodes,
        }
        self._train_settings = {
            "games": asdict(games),
            "config": asdict(config),
            "ppo": PPO_SETTINGS | {"rollout_choices": ROLLOUT_CHOICES},
        }
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, where: str, seed: int) -> dict[str, Any]:
        """Return the run of a PPO trained in "dream" or "teacher", from disk if it is there."""
        settings = self._train_settings | (self._dream_settings if where == "dream" else {})
        return self._kept(f"{where}-{seed}", settings, lambda: self._train(where, seed))

    def play_teacher(self, policy: str, seed: int) -> dict[str, Any]:
        """Return the run of the policy "random", "blind" or "expert", from disk if it is there."""

        def run() -> dict[str, Any]:
            seeds = self._seeds(seed)
            if policy == "expert":
                env = gym.make(self.games.teacher_id, horizon=self.games.horizon)
                skip = self.games.frame_skip
                played = play_alone(
                    env, ExpertPolicy(), seeds=seeds, policy_seed=seed, frame_skip=skip
                )
                env.close()
            else:
                played = play(self._teacher_games(), untrained(policy, seed), seeds=seeds)
            return {"points": [{"steps": 0, "training_return": None, **asdict(played)}]}

        return self._kept(f"{policy}-{seed}", self._play_settings, run)

    def play_dream(self, policy: str, seed: int) -> dict[str, Any]:
        """Return what the world says of a policy that was trained or played in the teacher."""

        def run() -> dict[str, Any]:
            games = self._dream_games()
            if policy in ("dream", "teacher"):
                choose = load_choice(self._policy_file(policy, seed), self.games)
            else:
                choose = untrained(policy, seed)
            seeds = self._seeds(seed)[: self.config.num_episodes]
            return {"points": [{"steps": 0, **asdict(play(games, choose, seeds=seeds))}]}

        settings = self._train_settings | self._dream_settings
        return self._kept(f"{policy}-{seed}-in-dream", settings, run)

    def close(self) -> None:
        """Close all games."""
        for games in (self._teacher, self._dream):
            if games is not None:
                games.close()

    def _train(self, where: str, seed: int) -> dict[str, Any]:
        config, frame_skip = self.config, self.games.frame_skip
        teacher, seeds = self._teacher_games(), self._seeds(seed)
        games = VecMonitor(
            self._make_dream(self.games)
            if where == "dream"
            else make_games(self.games.teacher_id, self.games)
        )
        begin = time.monotonic()
        model = self._make_ppo(games, seed)
        with tqdm(total=config.num_steps, desc=f"{where} {seed}", unit="step") as bar:
            evaluate = Evaluate(
                lambda choose: play(teacher, choose, seeds=seeds[: config.num_episodes]),
                every=config.num_steps / frame_skip / config.num_points,
                frame_skip=frame_skip,
                bar=bar,
            )
            model.learn(config.num_steps // frame_skip, callback=evaluate)
            evaluate.add_point(lambda choose: play(teacher, choose, seeds=seeds))
        games.close()
        # The policy shares its eyes between actor and critic; a file holds them once for each.
        weights = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        save_tensors(weights, self._policy_file(where, seed))
        return {"points": evaluate.points, "wall_s": round(time.monotonic() - begin, 1)}

    def _seeds(self, seed: int) -> range:
        """Return the seeds of the episodes that judge a training, others for each."""
        first = EVALUATION_SEED + seed * self.config.num_final_episodes
        return range(first, first + self.config.num_final_episodes)

    def _make_ppo(self, games: VecEnv, seed: int) -> PPO:
        return make_ppo(
            games,
            self.games,
            num_steps=self.config.num_steps,
            seed=TRAINING_SEED + 1000 * seed,
            device=self._device,
        )

    def _kept(
        self, name: str, settings: dict[str, Any], run: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a finished run's file, or run and write it.

        Raises:
            ValueError: There is a file, made with other settings.
        """
        file = self.folder / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["settings"] != settings:
                raise ValueError(
                    f"{file} was made with other settings ({kept['settings']}, now {settings}): "
                    f"choose another --output or delete it"
                )
            return kept
        result = {"settings": settings, **run()}
        write_whole(file, json.dumps(result, indent=1))
        return result

    def _policy_file(self, where: str, seed: int) -> Path:
        return self.folder / f"{where}-{seed}.safetensors"

    def _make_dream(self, games: GameConfig) -> VecEnv:
        if self._engine is None:
            device = None if self._device == "auto" else self._device
            self._engine = make_engine(self.world, device=device)
            self._starts = first_moments(self._engine, games.teacher_id, NUM_STARTS)
        return make_games(
            games.world_id,
            games,
            world=self.world,
            engine=self._engine,
            start_states=self._starts,
        )

    def _teacher_games(self) -> VecEnv:
        if self._teacher is None:
            self._teacher = make_games(self.games.teacher_id, self.games)
        return self._teacher

    def _dream_games(self) -> VecEnv:
        if self._dream is None:
            count = min(self.games.num_games, self.config.num_episodes)
            self._dream = self._make_dream(replace(self.games, num_games=count))
        return self._dream


def untrained(policy: str, seed: int) -> Choose:
    """Return the choices of "random" or "blind"."""
    return choose_at_random(seed) if policy == "random" else choose_always(BLIND_ACTION)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    games, config = GameConfig(), ExperimentConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default=games.task, choices=TASKS)
    parser.add_argument("--output", type=Path, default=Path("runs/ppo"), help="folder of the runs")
    parser.add_argument("--world", default="stage", help="a shipped world's name or a folder")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=config.num_steps, help="per training")
    parser.add_argument("--envs", type=int, default=games.num_games, help="games at once")
    parser.add_argument("--horizon", type=int, default=games.horizon)
    parser.add_argument("--frame-skip", type=int, default=games.frame_skip)
    parser.add_argument("--stack", type=int, default=games.num_stacked, help="last pictures seen")
    parser.add_argument("--points", type=int, default=config.num_points, help="of a curve")
    parser.add_argument("--episodes", type=int, default=config.num_episodes, help="per point")
    parser.add_argument("--final-episodes", type=int, default=config.num_final_episodes)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--policies", nargs="+", default=POLICIES, choices=POLICIES, help="rows of the table"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment, or what is left of it, and report."""
    options = parse(arguments)
    games = GameConfig(
        task=options.task,
        num_games=options.envs,
        horizon=options.horizon,
        frame_skip=options.frame_skip,
        num_stacked=options.stack,
    )
    config = ExperimentConfig(
        num_steps=options.steps,
        num_points=options.points,
        num_episodes=options.episodes,
        num_final_episodes=options.final_episodes,
    )
    experiment = Experiment(
        options.output, games, config, load_world(options.world), options.device
    )
    runs: dict[str, list[dict[str, Any]]] = {}
    dreams: dict[str, list[dict[str, Any]]] = {}
    seeds = range(options.seeds)
    for policy in dict.fromkeys(("random", *options.policies)):  # from which gains count
        run = experiment.train if policy in ("teacher", "dream") else experiment.play_teacher
        runs[policy] = [run(policy, seed) for seed in seeds]
    if "dream" in runs:
        for policy in runs:
            if policy != "expert":  # it asks the teacher where things lie
                dreams[policy] = [experiment.play_dream(policy, seed) for seed in seeds]
    experiment.close()
    print(report(options.output, runs, dreams))


if __name__ == "__main__":
    sys.exit(run_command("train_ppo", main, sys.argv[1:]))
