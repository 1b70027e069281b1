"""Collects episodes of a teacher: any Gymnasium env whose frames a world is to learn.

The seed decides everything about an episode - policy, env, folder name - so that any number of
workers gives the same episodes, and a run that was stopped goes on by skipping what exists. Seeds
are also the key by which episodes are split: a held-out seed is one that no training run collects.

A teacher gives its frames itself; a foreign env is adapted first (env.py), as `teacher` says.
Episodes of other origins, such as a player's own, may lie in the same folder: training reads every
episode there.

A worker that fails loses its episode, not the others; the result names the seeds that failed. How
workers run is workers.py's business, what an episode looks like on disk data/episodes.py's. One
collector at a time writes into a folder: at its start it clears away interrupted episodes.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from midas_world.config import DataConfig
from midas_world.data.episodes import Episode, EpisodeMetadata, is_episode, save_episode
from midas_world.data.recorder import EpisodeRecorder
from midas_world.data.video import Codec
from midas_world.files import remove_temporaries
from midas_world.locks import alone_in
from midas_world.teachers.env import make_teacher
from midas_world.teachers.policies import Policy, make_policy
from midas_world.teachers.workers import SeedReport, run_workers
from midas_world.trust import import_function

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
# Of info, kept as columns where an env gives them, beside those that it names (metadata).
_EXTRA_KEYS = ("keypoints", "things", "regions", "cost")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect, and where to: the last of an episode's steps at most is marked truncated."""

    data: DataConfig
    output: Path
    num_episodes: int
    first_seed: int = 0
    num_workers: int = 1
    codec: Codec = "h264"

    def __post_init__(self) -> None:
        counts = {"num_episodes": self.num_episodes, "num_workers": self.num_workers}
        for name, value in (counts | {"num_steps": self.data.num_steps}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed must not be negative, got {self.first_seed}")
        weights = self.data.policy_weights.values()
        if min(weights) < 0 or not sum(weights) > 0:
            raise ValueError(f"policies must have positive weights, got {self.data.policies}")

    @property
    def seeds(self) -> range:
        """The seeds of all episodes."""
        return range(self.first_seed, self.first_seed + self.num_episodes)

    def path_of(self, seed: int) -> Path:
        """The folder of the episode with this seed."""
        return Path(self.output) / f"episode-{seed:08d}"


@dataclass(frozen=True, kw_only=True)
class CollectResult:
    """What a call of collect did.

    Attributes:
        failed: Why an episode could not be collected, by seed.
    """

    collected: int
    skipped: int
    failed: Mapping[int, str]
    frames: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if every episode is there, else 1."""
        return int(bool(self.failed))


def make_env(data: DataConfig) -> gymnasium.Env:
    """Return the teacher that a config names, of which it is known how fast it is."""
    env = make_teacher(data)
    if not env.metadata.get("render_fps"):
        raise ValueError(f"{data.env_id} must give its speed as metadata['render_fps']")
    return env


def choose_policy(data: DataConfig, seed: int) -> str:
    """Return the name of the policy that plays the episode with this seed."""
    names = sorted(data.policy_weights)
    weights = np.array([data.policy_weights[name] for name in names], float)
    return str(np.random.default_rng((seed, 0)).choice(names, p=weights / weights.sum()))


def load_policy(factory: str, name: str, action_space: gymnasium.Space[Any]) -> Policy:
    """Return the policy of this name, made by a "module:function" of its name.

    Without one it is one of midas_world/teachers/policies.py.

    Raises:
        ValueError: There is no such function, or no such policy.
    """
    if not factory:
        return make_policy(name, action_space)
    make_own = import_function(factory, field="policy_factory")
    try:
        policy = make_own(name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"policy_factory {factory!r}: {error}") from error
    if not all(callable(getattr(policy, verb, None)) for verb in ("reset", "act")):
        raise ValueError(
            f"{factory} must return a policy with reset(rng) and act(observation, info), "
            f"got {policy!r:.60}"
        )
    return policy


def play_episode(env: gymnasium.Env, data: DataConfig, seed: int) -> Episode:
    """Play one episode; it ends with the env's, or after data.num_steps, marked truncated."""
    name = choose_policy(data, seed)
    policy = load_policy(data.policy_factory, name, env.action_space)
    policy.reset(np.random.default_rng((seed, 1)))
    observation, info = env.reset(seed=seed)
    keys = (*_EXTRA_KEYS, *env.metadata.get("extra_keys", ()))
    recorder = EpisodeRecorder(extra_keys=[key for key in keys if key in info])
    scene = info.get("scene", {})
    recorder.reset(observation, info)
    ended = False
    while not ended:
        action = policy.act(observation, info)
        observation, reward, terminated, truncated, info = env.step(action)
        truncated = truncated or (not terminated and recorder.num_steps + 1 == data.num_steps)
        recorder.step(action, observation, float(reward), terminated, truncated, info)
        ended = terminated or truncated
    metadata = EpisodeMetadata(
        env_id=data.env_id,
        seed=seed,
        policy=name,
        fps=env.metadata["render_fps"],
        scene=scene,
        details=_details(env, data),
    )
    return recorder.to_episode(metadata)


def collect(
    config: CollectConfig, *, enough: Callable[[int, int], bool] | None = None
) -> CollectResult:
    """Collect the episodes that are not there yet, and log progress meanwhile.

    A failing episode is logged and the others go on; a full disk ends the run. After Ctrl-C, or a
    kill, only whole episodes are there, and another call goes on where this one was.

    Args:
        config: What, and where to.
        enough: Asked after each episode, with the frames written and the episodes failed by this
            call, whether it may end before all are there.

    Raises:
        BusyError: another process collects into the same folder.
        RuntimeError: a worker process cannot start.
    """
    with alone_in(Path(config.output)):
        return _collect(config, enough)


def _collect(config: CollectConfig, enough: Callable[[int, int], bool] | None) -> CollectResult:
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    stale = remove_temporaries(output)
    if stale:
        logger.info("removed %d unfinished episodes of an interrupted run", stale)
    seeds = [seed for seed in config.seeds if not is_episode(config.path_of(seed))]
    skipped = config.num_episodes - len(seeds)
    if skipped:
        logger.info("%d episodes are there already", skipped)
    started = time.perf_counter()
    reports: list[SeedReport] = []
    if seeds:
        if enough is None:
            _try_out(config.data)
        make_collector = partial(_EpisodeCollector, config)
        running = run_workers(make_collector, seeds, num_workers=config.num_workers)
        try:
            with contextlib.closing(running):
                reports = _follow(running, total=len(seeds), enough=enough)
        finally:
            remove_temporaries(output)
    failed = {report.seed: report.error for report in reports if report.error is not None}
    result = CollectResult(
        collected=len(reports) - len(failed),
        skipped=skipped,
        failed=failed,
        frames=sum(report.frames for report in reports),
        seconds=time.perf_counter() - started,
    )
    logger.info(
        "collected %d episodes, %d frames, in %.1f s",
        *(result.collected, result.frames, result.seconds),
    )
    if failed:
        names = ", ".join(map(str, sorted(failed)[:10]))
        not_tried = f", {len(seeds) - len(reports)} not tried" if enough is None else ""
        logger.error("%d episodes failed (seeds %s)%s", len(failed), names, not_tried)
    return result


class _EpisodeCollector:
    """Plays and saves episodes in one env: what a worker does."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._env = make_env(config.data)

    def collect(self, seed: int) -> int:
        episode = play_episode(self._env, self._config.data, seed)
        save_episode(episode, self._config.path_of(seed), codec=self._config.codec)
        return len(episode.frames)

    def close(self) -> None:
        self._env.close()


def _follow(
    reports: Iterator[SeedReport], *, total: int, enough: Callable[[int, int], bool] | None
) -> list[SeedReport]:
    """Show progress while reports come in, and return them all, or as many as are enough."""
    started = logged = time.perf_counter()
    seen: list[SeedReport] = []
    frames = failed = 0
    # Without a terminal the bar disables itself, and a line is logged from time to time instead.
    bar = tqdm(total=None if enough else total, unit="episode", disable=None)
    with logging_redirect_tqdm(), bar:
        for report in reports:
            seen.append(report)
            frames += report.frames
            if report.error is not None:
                failed += 1
                logger.error("the episode of seed %d failed: %s", report.seed, report.error)
            now = time.perf_counter()
            rate = frames / (now - started)
            bar.set_postfix_str(f"{rate:.0f} frames/s", refresh=False)
            bar.update()
            if bar.disable and now - logged > _LOG_SECONDS:
                logged = now
                logger.info("%d episodes, %.0f frames/s", len(seen), rate)
            if enough is not None and enough(frames, failed):
                break
    return seen


def _try_out(data: DataConfig) -> None:
    """Make env and policies, so that what is wrong with them is told once, and not by workers."""
    with contextlib.closing(make_env(data)) as env:
        for name in data.policy_weights:
            load_policy(data.policy_factory, name, env.action_space)


def _details(env: gymnasium.Env, data: DataConfig) -> dict[str, Any]:
    """Return what else the header should say of the env."""
    details: dict[str, Any] = {"env_kwargs": dict(data.env_kwargs)} if data.env_kwargs else {}
    if data.teacher is not None:
        details["action_names"] = list(getattr(env, "action_names", ()))
        details["repeat"] = data.teacher.repeat
    return details
