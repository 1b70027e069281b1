"""From recordings and a few options to what will be written, before anything is (writing.py)."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import cast

from midas_world.config import (
    ActionConfig,
    ProjectConfig,
    TeacherConfig,
    load_config,
    load_preset,
    override_config,
)
from midas_world.data.sound import STEPS_PER_SECOND
from midas_world.importing.episodes import LEAST_STEPS, Cut, Survey, survey
from midas_world.importing.naming import Namer, found_actions
from midas_world.importing.opening import ImportRequest, Several, open_source
from midas_world.importing.recording import RecordingError, Source
from midas_world.importing.sound import AUDIO_SIZE
from midas_world.teachers.collected import FEW_FRAMES
from midas_world.teachers.options import WANTED_FPS
from midas_world.teachers.project import (
    CPU_TOKENS,
    KeyMapFile,
    for_any_env,
    preset_of,
    size_for,
    words_for,
)

_FEW_EPISODES, _MOST_HELD = 8, 64
_RARE = 0.01
# More points than these are told as numbers alone, without a map of each.
_MOST_MAPS = 24
# On disk as H.264 (data/video.py): 6.4 KB of a frame of 192 x 320.
_BYTES_PER_PIXEL = 6400 / (192 * 320)


@dataclass(frozen=True, kw_only=True)
class RecordedMap(KeyMapFile):
    """A user's key map of recordings, which may have keypoints.

    Attributes:
        limbs: Pairs of keypoints with a bone in between, by their places in the table.
    """

    limbs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What will be written; `str` of it says so.

    Attributes:
        config: Of the world, but for the numbers of episodes.
    """

    request: ImportRequest
    source: Several
    namer: Namer
    cut: Cut
    config: ProjectConfig
    found: Survey

    def __str__(self) -> str:
        found, cut, world = self.found, self.cut, self.config.world
        length = timedelta(seconds=round(found.num_frames * cut.step_s))
        held = round(found.num_episodes / held_every(found.num_episodes, self.request.held_out))
        size = world.height * world.width * found.num_frames
        shown = "x".join(map(str, self.source.size))
        is_little = "; a world of so few knows little" * (found.num_frames < FEW_FRAMES)
        missing = problem_words(found.problems)
        if self.namer.unnamed:
            missing.append(f"an action for the keys {', '.join(sorted(self.namer.unnamed))}")
        lines = [
            self.source.label,
            f"  frames   {found.num_frames:,}, {length}, {1 / cut.step_s:.4g} a second of "
            f"{self.source.fps:.4g}{is_little}",
            f"  episodes {found.num_episodes:,} of {min(found.lengths)} to {max(found.lengths)} "
            f"steps, about {held:,} held out",
            f"  actions  {self._balance()}",
            f"  rewards  {found.num_rewards or 'none'}",
            f"  missing  {'; '.join(missing) or 'nothing'}",
            f"  size     {world.height}x{world.width} ({cut.fit}) of {shown}, "
            f"{world.tokens_per_frame} tokens",
            f"  disk     about {_BYTES_PER_PIXEL * size / 1e6:,.1f} MB; "
            f"{3 * size / 1e6:,.1f} MB decoded while training",
        ]
        return "\n".join(lines)

    def _balance(self) -> str:
        total = self.found.actions.total()
        parts = []
        for place, (name, action) in enumerate(self.namer.actions.items()):
            share = self.found.actions[place] / total
            keys = f" ({'+'.join(action.keys)})" if action.keys else ""
            rare = " rare" if 0 < share < _RARE else " never" * (not share)
            parts.append(f"{name}{keys} {100 * share:.{int(share < 0.1)}f} %{rare}")
        return ", ".join(parts)


def held_every(num_episodes: int, share: float) -> int:
    """Return the n of which every n-th episode is held out, at least one and not too many."""
    return max(2, min(round(1 / max(share, 1e-9)), num_episodes), -(-num_episodes // _MOST_HELD))


def problem_words(problems: Counter[str]) -> list[str]:
    """Return what is left out, in words, the most frequent first."""
    return [f"{count:,} {words}" for words, count in problems.most_common() if count > 0]


def plan_import(request: ImportRequest) -> ImportPlan:
    """Return what is to be written; looks at the recordings, writes nothing.

    Raises:
        ValueError: They cannot be read, or an option does not fit them.
        FileExistsError: There is something in a new folder's place.
    """
    old = _earlier(request)
    if len(request.sources) > 1 and (request.actions or request.keypoints):
        raise RecordingError(
            "--actions and --keypoints are of one film: leave several with a table beside each"
        )
    source = Several([open_source(path, request) for path in request.sources])
    given = load_config(RecordedMap, request.keymap) if request.keymap else RecordedMap()
    actions: Mapping[str, ActionConfig] = given.actions or (old and _actions_of(old)) or {}
    namer = Namer(actions or source.actions or found_actions(source.moments(pixels=False)))
    step_s = _step_s(request, source, old)
    size, fit = request.size, request.fit
    if old is not None:
        size = size or (old.world.height, old.world.width)
        fit = fit or cast("str", old.data.teacher and old.data.teacher.fit)
    config = _project_for(
        source,
        namer.actions,
        preset=request.preset if old is None else str(preset_of(request.to)),
        overrides=request.overrides,
        size=size,
        fit=fit or "pad",
        fps=1 / step_s,
        limbs=given.limbs,
    )
    if old is not None:
        _check_same(old, config, request.to)
    world = config.world
    if world.fps != max(1, round(1 / step_s)):
        raise RecordingError(
            f"steps are {1 / step_s:.4g} a second: --fps changes it, not world.fps"
        )
    cut = Cut(
        step_s=step_s,
        num_steps=max(LEAST_STEPS, request.steps or config.data.num_steps),
        size=(world.height, world.width),
        fit=fit or "pad",
        text=request.text,
    )
    found = survey(source, namer, cut)
    if found.num_episodes < _FEW_EPISODES and request.steps is None and old is None:
        shorter = max(LEAST_STEPS, found.num_frames // _FEW_EPISODES - 1)
        if shorter < cut.num_steps:
            cut = replace(cut, num_steps=shorter)
            found = survey(source, namer, cut)
    least = 2 if old is None else 1
    if found.num_episodes < least:
        missing = "; ".join(problem_words(found.problems))
        raise RecordingError(
            f"{source.label}: {found.num_frames} frames can be used, at least "
            f"{least * (LEAST_STEPS + 1)} are needed{f' (missing: {missing})' if missing else ''}"
        )
    longest = max(found.lengths)
    backbone = world.backbone
    context = min(backbone.context_frames, max(2, longest // 2))
    config = replace(
        config, world=replace(world, backbone=replace(backbone, context_frames=context))
    )
    plan = ImportPlan(
        request=request, source=source, namer=namer, cut=cut, config=config, found=found
    )
    _check_disk(plan)
    return plan


def _project_for(
    source: Source,
    actions: Mapping[str, ActionConfig],
    *,
    preset: str,
    overrides: Sequence[str],
    size: tuple[int, int] | None,
    fit: str,
    fps: float,
    limbs: tuple[tuple[int, int], ...],
) -> ProjectConfig:
    """Return the project config of a world that learns from recordings alone.

    Where they tell of no keypoints and no pose, the action is it. Limbs are pairs of keypoints with
    a bone in between; none: each is a disc. Overrides win.

    Raises:
        ValueError: Sizes or overrides do not fit.
    """
    neutral = for_any_env(load_preset(preset))
    base = override_config(neutral, overrides)
    size = size or size_for(
        source.size, base, preset=preset, overrides=overrides, max_tokens=CPU_TOKENS
    )
    count = source.num_points
    limbs = limbs or tuple((k, k) for k in range(count if count <= _MOST_MAPS else 0))
    fitted = [
        *words_for(size, fps, base),
        f"world.conditions.pose_size={2 * count or source.pose_size or len(actions)}",
        f"world.conditions.num_keypoints={count}",
        f"world.conditions.limbs={[list(limb) for limb in limbs]}",
        f"world.conditions.audio_size={AUDIO_SIZE * source.has_sound}",
    ]
    if count or source.pose_size or source.has_sound:
        fitted.append("world.conditions.drop_rate=0.1")  # so that it can do without, at play
    config = override_config(neutral, overrides, fitted=fitted)
    teacher = TeacherConfig(
        height=size[0],
        width=size[1],
        fit=fit,  # pyright: ignore[reportArgumentType]
        conditions="info" if count or source.pose_size else "action",
        actions=dict(actions),
    )
    data = replace(config.data, env_id="", env_kwargs={}, teacher=teacher, policy_factory="")
    return replace(config, data=replace(data, policies={}, conditioner=""))


def _earlier(request: ImportRequest) -> ProjectConfig | None:
    """Return the config of the folder that is added to; None of a new one."""
    path = preset_of(request.to)
    if not request.add:
        if request.to.exists():
            hint = " (--add joins an earlier import)" if path.is_file() else ""
            raise FileExistsError(f"{request.to} exists already{hint}: name another folder")
        return None
    if not path.is_file():
        raise RecordingError(f"--add: {request.to} is no folder of an earlier import: no {path}")
    return load_config(ProjectConfig, path)


def _actions_of(config: ProjectConfig) -> Mapping[str, ActionConfig]:
    return config.data.teacher.actions if config.data.teacher is not None else {}


def _check_same(old: ProjectConfig, new: ProjectConfig, folder: Path) -> None:
    """Raise RecordingError if what is added is of another kind than what is there."""
    pairs = {
        "actions": (_actions_of(old), _actions_of(new)),
        "fps": (old.world.fps, new.world.fps),
        "frame size": ((old.world.height, old.world.width), (new.world.height, new.world.width)),
        "pose": (old.world.conditions.pose_size, new.world.conditions.pose_size),
        "sound": (old.world.conditions.audio_size, new.world.conditions.audio_size),
    }
    for name, (there, here) in pairs.items():
        if there != here:
            raise RecordingError(
                f"{folder} is of another {name}: {there!s:.80}, now {here!s:.80}; name another "
                "folder, or the options of the first import"
            )


def _step_s(request: ImportRequest, source: Several, old: ProjectConfig | None) -> float:
    """Return the length of a step.

    Raises:
        RecordingError: It does not fit the sound.
    """
    if source.has_sound:
        if request.fps not in (None, STEPS_PER_SECOND):
            raise RecordingError(f"sound is of {STEPS_PER_SECOND} steps a second: leave --fps out")
        return 1 / STEPS_PER_SECOND
    if request.fps is not None:
        return 1 / request.fps
    step_s = max(1, round(round(source.fps) / WANTED_FPS)) / source.fps
    if old is not None and max(1, round(1 / step_s)) != old.world.fps:
        return 1 / old.world.fps
    return step_s


def _check_disk(plan: ImportPlan) -> None:
    """Raise RecordingError if the episodes will hardly fit on the disk."""
    world = plan.config.world
    each = 3.0 if plan.request.codec == "raw" else _BYTES_PER_PIXEL
    wanted = each * world.height * world.width * plan.found.num_frames
    place = plan.request.to.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise RecordingError(
            f"the episodes take about {wanted / 1e9:.2g} GB, {free / 1e9:.2g} GB are free"
        )
