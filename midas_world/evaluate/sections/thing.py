"""The section on things: are those in view held, do new ones appear, and do they last?

PSNR does not tell: a coin is a hundredth of the picture.

Shapes: T steps, H W pixels, J things.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import mean_of
from midas_world.evaluate.probes.pictures import (
    CLEAR_PX,
    Seen,
    ThingProbe,
    thing_targets,
    train_thing_probe,
)
from midas_world.evaluate.probes.training import halve
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import Script, TeacherEpisode, play_world, without_things
from midas_world.evaluate.sections.game import ACTIONS
from midas_world.evaluate.study import THING_SEED, NotApplicableError, Study
from midas_world.tables import Cell

_MARKS = (1, 5, 10, 20, 40)
_LEAD_STEPS = 30  # of the teacher before the context: near the start lies nothing
_TRIES = 6
_NUM_STRIPS = 4
_MIN_ENERGY = 35.0  # mean square of thing minus background, in levels: fainter ones say nothing
_SAME_PX = 14.0
_MIN_SEEN = 3
_MIN_SPELL = 6
_END_STEPS = 3
_PER_PX = 160.0


class Held(NamedTuple):
    """How a thing is drawn, against the teacher's: its share of contrast, and correlation."""

    contrast: float
    correlation: float


def held_score(
    shown: np.ndarray, real: np.ndarray, background: np.ndarray, thing: np.ndarray
) -> Held | None:
    """Return how much of a thing of the teacher's is in a frame; None if it is hardly there.

    In the thing's box, d is the teacher's frame minus the background and q the shown frame minus
    it. Contrast is q.d / d.d, 1 for the teacher's own; correlation is q.d / sqrt(q.q d.d).

    Args:
        shown: (H, W, 3) uint8, what is judged.
        real: The teacher's frame.
        background: The teacher's frame without things.
        thing: (6,), as in `TeacherEpisode.things`.
    """
    _, x, y, half_width, half_height, _ = (float(value) for value in thing)
    rows = slice(max(0, round(y - half_height)), round(y + half_height))
    columns = slice(max(0, round(x - half_width)), round(x + half_width))
    q, d, b = (frame[rows, columns].astype(np.float64) for frame in (shown, real, background))
    q, d = q - b, d - b
    energy = float((d * d).sum())
    if energy < _MIN_ENERGY * d.size:
        return None
    product = float((q * d).sum())
    return Held(product / energy, product / np.sqrt(energy * (q * q).sum() + 1e-6))


def in_view(things: np.ndarray, size: tuple[int, int]) -> dict[tuple[int, float], np.ndarray]:
    """Return the things (J, 6) that lie whole in the picture and clear of the character."""
    height, width = size
    return {
        (int(row[0]), float(row[5])): row
        for row in things
        if row[0] >= 0
        and row[3] <= row[1] <= width - row[3]
        and row[4] <= row[2] <= height - row[4]
        and abs(row[1] - width / 2) >= CLEAR_PX
    }


def held_scores(
    shown: np.ndarray, episode: TeacherEpisode, plain: TeacherEpisode, first: int, now: int
) -> list[Held]:
    """Return how things are drawn in (H, W, 3) uint8 that the teacher shows now and at first."""
    assert episode.things is not None
    real, background = episode.frames[now], plain.frames[now]
    size, known = shown.shape[:2], in_view(episode.things[first], shown.shape[:2])
    scores = [
        held_score(shown, real, background, thing)
        for key, thing in in_view(episode.things[now], size).items()
        if key in known
    ]
    return [score for score in scores if score is not None]


@dataclass
class Track:
    """A thing that a probe saw at one place of the scenery.

    Attributes:
        place: Along the scenery, px from the middle of the first frame.
        steps: When it was seen, steps from 0.
    """

    place: float
    y: float
    steps: list[int] = field(default_factory=list)


def find_tracks(seen: Sequence[Sequence[Seen]], camera: np.ndarray, *, width: int) -> list[Track]:
    """Return the things that were seen, each once.

    Args:
        seen: Of each of T frames.
        camera: (T,) px that the camera has travelled since the first frame.
        width: W.
    """
    tracks: list[Track] = []
    for step, (items, at) in enumerate(zip(seen, camera, strict=True)):
        for item in items:
            place = item.x - width / 2 + float(at)
            near = [
                track
                for track in tracks
                if abs(track.place - place) < _SAME_PX and abs(track.y - item.y) < _SAME_PX
            ]
            if near:
                best = min(near, key=lambda track: abs(track.place - place))
                # The first sight may be of half a thing at the edge.
                best.place += (place - best.place) / min(1 + len(best.steps), 5)
                best.steps.append(step)
            else:
                tracks.append(Track(place, item.y, [step]))
    return tracks


@dataclass
class Travel:
    """What was found on the way through new scenery.

    Attributes:
        appeared: New things, each seen in `_MIN_SEEN` steps or more.
        spells: Of these, those whose time in view was long enough to tell.
        lasted: Of these, those still seen at its end.
    """

    uncovered: float = 0.0
    appeared: int = 0
    spells: int = 0
    lasted: int = 0

    @property
    def rate(self) -> float:
        """New things per 160 px."""
        return self.appeared / self.uncovered * _PER_PX if self.uncovered else float("nan")

    @property
    def lasting(self) -> float:
        """Share of new things that lasted."""
        return self.lasted / self.spells if self.spells else float("nan")

    def add(self, seen: Sequence[Sequence[Seen]], camera: np.ndarray, *, width: int) -> None:
        """Change the counts by a rollout; what lies where nothing was new does not count.

        Both are of T + 1 frames, the last real one before; the camera's (T + 1,) px since that one.
        """
        self.uncovered += float(np.ptp(camera))
        for track in find_tracks(seen, camera, width=width):
            known = camera[0] - width / 2 - _SAME_PX <= track.place <= camera[0] + width / 2 + 4
            if known or len(track.steps) < _MIN_SEEN:
                continue
            self.appeared += 1
            away = np.abs(track.place - camera)
            # From when it is whole in view until the character is near, or it leaves.
            visible = (away <= width / 2 - 12) & (away >= CLEAR_PX)
            spell = np.flatnonzero(visible)
            if len(spell):
                gaps = np.flatnonzero(np.diff(spell) > 1)
                spell = spell[: gaps[0] + 1] if len(gaps) else spell
            if len(spell) >= _MIN_SPELL:
                self.spells += 1
                self.lasted += bool(set(track.steps) & set(spell[-_END_STEPS:].tolist()))


def thing_section(study: Study) -> Section:
    """Measure whether things in view are held, new ones appear, and these last."""
    held, pictures = _held(study)
    probe = _thing_probe(study)
    travels, recall, precision = _travel(study, probe)
    values: dict[str, Any] = {}
    marks = [mark for mark in _MARKS if mark <= study.config.thing_steps]
    table: list[tuple[Cell, ...]] = []
    for mark in marks:
        scores = held[mark]
        contrast = mean_of([score.contrast for score in scores])
        correlation = mean_of([score.correlation for score in scores])
        values |= {f"contrast_{mark}": contrast, f"correlation_{mark}": correlation}
        values[f"num_things_{mark}"] = len(scores)
        table.append((mark, correlation, contrast, len(scores)))
    world, teacher = travels["world"], travels["teacher"]
    values |= {"appeared": world.rate, "teacher_appeared": teacher.rate}
    values["appeared_ratio"] = world.rate / teacher.rate if teacher.rate else float("nan")
    values |= {"lasting": world.lasting, "teacher_lasting": teacher.lasting}
    values |= {"probe_recall": recall, "probe_precision": precision}
    config = study.config
    return Section(
        title="Things",
        method=(
            f"Held: from {config.num_thing_runs} start frames of the teacher with things in view, "
            "under its actions, the things that were in view at the start and that the teacher "
            f"still shows, whole in the picture and {CLEAR_PX:g} px from the character. With d the "
            "teacher's frame minus the same without things and q the world's minus that, in the "
            "thing's box: correlation q.d / sqrt(q.q d.d), contrast left q.d / d.d. Appeared: "
            f"{', '.join(ACTIONS)} held for {config.travel_steps} steps from "
            f"{config.num_travel_starts} starts, {config.travel_seeds} seeds; things that a "
            f"probe sees in {_MIN_SEEN} frames or more where no scenery had been in view before, "
            f"per {_PER_PX:g} px of such scenery. Lasting: share of them seen in one of the last "
            f"{_END_STEPS} steps of their time in view, which ends when the character is near. The "
            f"probe's recall and precision on the teacher's frames of these runs: {recall:.3f} and "
            f"{precision:.3f}. Strips: teacher above, world below, steps "
            f"{', '.join(map(str, marks))}."
        ),
        values=values,
        tables=(
            Table(
                title="Held", columns=("step", "correlation", "contrast left", "things"), rows=table
            ),
            Table(
                title="Appeared",
                columns=("", f"new per {_PER_PX:g} px", "new things", "px", "lasting", "of"),
                rows=tuple(
                    (name, t.rate, t.appeared, round(t.uncovered), t.lasting, t.spells)
                    for name, t in travels.items()
                ),
            ),
        ),
        pictures=pictures,
    )


def _held(study: Study) -> tuple[dict[int, list[Held]], tuple[str, ...]]:
    """Return the scores at each mark, and the names of strips of the first runs."""
    steps, context = study.config.thing_steps, study.context_frames
    marks = [mark for mark in _MARKS if mark <= steps]
    env = study.make_endless_world(steps)
    held: dict[int, list[Held]] = {mark: [] for mark in marks}
    pictures: list[str] = []
    runs = islice(_thing_starts(study), study.config.num_thing_runs)
    shown = tqdm(runs, total=study.config.num_thing_runs, desc="things", mininterval=5.0)
    for episode, plain in shown:
        end = len(episode.frames) - steps
        start, actions = episode.start_state(context, end=end), episode.actions[end - 1 :]
        frames = [m.frame for m in play_world(env, start, actions, seed=episode.seed)]
        for mark in marks:
            held[mark] += held_scores(frames[mark - 1], episode, plain, end - 1, end - 1 + mark)
        if len(pictures) < _NUM_STRIPS:
            rows = [episode.frames[end - 1 :], [episode.frames[end - 1], *frames]]
            strip = [[row[mark] for mark in marks] for row in rows]
            pictures.append(study.save_strip(f"things-{episode.seed}.png", strip))
    return held, tuple(pictures)


def _thing_starts(study: Study) -> Iterator[tuple[TeacherEpisode, TeacherEpisode]]:
    """Yield episodes with things in view where the last `thing_steps` begin; and without things.

    Raises:
        NotApplicableError: The teacher lists no things.
    """
    config, context = study.config, study.context_frames
    env, steps = study.make_teacher(), _LEAD_STEPS + context - 1 + config.thing_steps
    options = dict(config.teacher_options)
    for seed in range(THING_SEED, THING_SEED + _TRIES * config.num_thing_runs):
        episode = study.play_teacher(env, seed, num_steps=steps, options=options)
        if episode.things is None:
            raise NotApplicableError('the teacher gives no info["things"]')
        if episode.num_steps < steps or not in_view(
            episode.things[steps - config.thing_steps], study.size
        ):
            continue
        yield episode, without_things(env, episode, num_steps=steps, options=options)


def _travel(study: Study, probe: ThingProbe) -> tuple[dict[str, Travel], float, float]:
    """Return what appears in the world and in the teacher, and the probe's recall and precision."""
    config, context = study.config, study.context_frames
    size, width = study.size, study.size[1]
    actions = [study.action(name) for name in ACTIONS]
    env = study.make_endless_world(config.travel_steps)
    teacher, travels = study.make_teacher(), {"world": Travel(), "teacher": Travel()}
    found = np.zeros(3, int)
    seeds = range(THING_SEED + 500, THING_SEED + 500 + config.num_travel_starts)
    for number, seed in enumerate(tqdm(seeds, desc="travel", mininterval=5.0)):
        action = actions[number % len(actions)]
        steps = context - 1 + config.travel_steps
        episode = study.play_teacher(
            teacher, seed, num_steps=steps, options=config.teacher_options, policy=Script([action])
        )
        if episode.num_steps < context or episode.things is None:
            continue
        seen = probe(episode.frames[context - 1 :])
        camera = study.camera_places(episode.conditions[context - 1 :])
        travels["teacher"].add(seen, camera, width=width)
        for items, things in zip(seen, episode.things[context - 1 :], strict=True):
            found += _matches(items, things, size)
        for again in range(config.travel_seeds):
            moments = list(
                play_world(
                    env, episode.start_state(context), [action] * config.travel_steps,
                    seed=seed + 1000 * again,
                )
            )  # fmt: skip
            frames = np.stack([episode.frames[context - 1], *(m.frame for m in moments)])
            told = [episode.conditions[context - 1], *(m.conditions for m in moments)]
            travels["world"].add(probe(frames), study.camera_places(told), width=width)
    true, told, both = (int(value) for value in found)
    return travels, both / max(true, 1), both / max(told, 1)


def _matches(
    items: Sequence[Seen], things: np.ndarray, size: tuple[int, int]
) -> tuple[int, int, int]:
    """Return how many things are there, are seen, and both, clear of character and edges."""
    whole = [row[1:3] for row in in_view(things, size).values()]
    clear = [
        item
        for item in items
        if abs(item.x - size[1] / 2) >= CLEAR_PX and 16 <= item.x <= size[1] - 16
    ]
    every = [row[1:3] for row in things if row[0] >= 0]

    def meet(place: np.ndarray, item: Seen) -> bool:
        return abs(place[0] - item.x) < _SAME_PX and abs(place[1] - item.y) < _SAME_PX

    # Of things half in view the probe may see what it wants.
    hits = sum(any(meet(place, item) for item in items) for place in whole)
    false = sum(not any(meet(place, item) for place in every) for item in clear)
    return len(whole), hits + false, hits


def _thing_probe(study: Study) -> ThingProbe:
    """Return the probe, newly trained.

    Raises:
        NotApplicableError: The teacher lists no things.
    """
    config = study.config.thing_probe
    env = study.make_teacher()
    if env.reset(seed=config.first_seed)[1].get("things") is None:
        raise NotApplicableError('the teacher gives no info["things"]')
    samples = [
        (halve(moment.frame[None])[0], moment.info["things"])
        for moment in study.sample_moments(env, config)
    ]
    pairs = [thing_targets(things, size=study.size) for _, things in samples]
    targets, weights = (np.stack(part) for part in zip(*pairs, strict=True))
    return train_thing_probe(np.stack([half for half, _ in samples]), targets, weights, config)
