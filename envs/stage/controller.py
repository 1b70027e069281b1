"""Pose controller of Stage: a pure function from actions and gestures to the body's motion.

The teacher and every learned world share this code, so it knows nothing of rocks, hearts or pixels.
Each step picks a target pose from the running motion; when the motion changes, the difference to
the last pose fades out over a few steps, so that no joint jumps.
"""

import math
from itertools import islice

import numpy as np

from envs.stage.skeleton import (
    RUN_STRIDE,
    WALK_STRIDE,
    Pose,
    air_pose,
    crouch_pose,
    hermite,
    mix,
    pose_keypoints,
    run_pose,
    smooth,
    stand_pose,
    walk_pose,
)
from envs.tasks import LOOP

ACTIONS: tuple[str, ...] = (
    "idle",
    "walk_left",
    "walk_right",
    "run_left",
    "run_right",
    "jump",
    "jump_left",
    "jump_right",
    "leap_left",
    "leap_right",
    "crouch",
    "wave",
    "punch",
    "kick",
    "talk",
)
WORLD_LENGTH = LOOP

# All speeds in px per step, all durations in steps (20 a second).
WALK_SPEED = 3.0
RUN_SPEED = 6.0
SPEED_UP = 2.0
SLOW_DOWN = 3.0
JUMP_STEPS = 15
JUMP_PEAK = 44.0
LANDING_STEPS = 5
TURN_PER_STEP = 0.5
ATTACK_STEPS = 8
HIT_STEPS = {"punch": (3, 4, 5), "kick": (4, 5, 6)}
_GROUND_SPEEDS = {
    "walk_left": -WALK_SPEED,
    "walk_right": WALK_SPEED,
    "run_left": -RUN_SPEED,
    "run_right": RUN_SPEED,
}
_JUMP_SPEEDS = {
    "jump": 0.0,
    "jump_left": -WALK_SPEED,
    "jump_right": WALK_SPEED,
    "leap_left": -RUN_SPEED,
    "leap_right": RUN_SPEED,
}
_STAND, _GAIT, _CROUCH, _AIR = range(4)
_OVERLAYS = ("none", "wave", "talk", "punch", "kick")
# Keys of the kicking foot and of the punching arm: (attack step, ...).
_KICK_KEYS = (
    (0.0, 0.0, 0.0),
    (1.8, 7.0, 17.0),
    (4.0, 38.0, 34.0),
    (5.6, 37.0, 33.0),
    (7.2, 14.0, 17.0),
    (9.0, 2.0, 0.0),
)
_PUNCH_KEYS = (
    (0.0, 0.3, 1.4),
    (1.2, -0.4, 2.1),
    (3.3, 1.52, 0.05),
    (5.2, 1.48, 0.1),
    (6.5, 0.6, 1.5),
    (8.5, 0.5, 1.7),
)

# All numbers that change and their types, in the order of a state.
_STATE = {
    **{"x": float, "facing": int, "turn": float, "velocity": float, "height": float},
    **{"crouching": bool, "talking": bool, "_clock": int, "_phase": float},
    **dict.fromkeys(("_jump_step", "_jump_lead", "_landing", "_overlay", "_overlay_step"), int),
    **dict.fromkeys(("_punch_arm", "_motion", "_blend_step", "_blend_steps"), int),
}


def _approach(value: float, target: float, amount: float) -> float:
    return min(target, value + amount) if value < target else max(target, value - amount)


def _runs(speed: float) -> float:
    """Return how much of a run there is in a speed, from 0 at a walk to 1."""
    return smooth((speed - WALK_SPEED) / (RUN_SPEED - WALK_SPEED))


class PoseController:
    """Turns actions into world x, facing, height and a smooth pose, one step at a time.

    Attributes:
        x: World position in px, unbounded.
        facing: +1 right, -1 left: the way the character acts.
        turn: The way the body points while it turns around, -1 to 1.
        velocity: Horizontal speed in px per step.
        height: Height above the ground in px.
        crouching: Whether it ducks.
        talking: Whether the talk action is held.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self, *, x: float = 0.0, facing: int = 1) -> None:
        """Stand still at world x, facing +1 (right) or -1 (left)."""
        if facing not in (-1, 1):
            raise ValueError(f"facing must be -1 or 1, got {facing}")
        self.x = float(x)
        self.facing = facing
        self.turn = float(facing)
        self.velocity = 0.0
        self.height = 0.0
        self.crouching = False
        self.talking = False
        self._clock = 0
        self._phase = 0.08
        self._jump_step = 0
        self._jump_lead = 1
        self._landing = 0
        self._overlay = 0
        self._overlay_step = 0
        self._punch_arm = 1
        self._motion = self._motion_key(_STAND)
        self._pose = stand_pose(0.0)
        self._offset = Pose(*([0.0] * len(Pose._fields)))
        self._blend_step = self._blend_steps = 1

    @property
    def airborne(self) -> bool:
        """Whether the character is off the ground."""
        return self._jump_step > 0

    @property
    def attack(self) -> str | None:
        """'punch' or 'kick' during the steps that hit, else None."""
        name = _OVERLAYS[self._overlay]
        return name if self._overlay_step in HIT_STEPS.get(name, ()) else None

    def step(self, action: int, *, hands: tuple[float, float] = (0.0, 0.0)) -> None:
        """Advance by 1/20 s under an action, an index of `ACTIONS`.

        Args:
            action: What is held.
            hands: How far a speaker who stands raises the near and the far hand, 0 to 1.
        """
        if not 0 <= action < len(ACTIONS):
            raise ValueError(f"action must be in [0, {len(ACTIONS)}), got {action}")
        name = ACTIONS[action]
        self._clock += 1
        self._landing = max(0, self._landing - 1)
        self.talking = name == "talk"
        self._step_overlay(name)
        self._move(name)
        self.turn = _approach(self.turn, self.facing, TURN_PER_STEP)
        self._step_pose(name, hands)

    def _step_overlay(self, name: str) -> None:
        """Keep the arms' (or the kicking leg's) own motion: attacks play out, others are held."""
        current = _OVERLAYS[self._overlay]
        wanted = name if name in _OVERLAYS else "none"
        if current in HIT_STEPS and self._overlay_step < ATTACK_STEPS:
            self._overlay_step += 1
        elif wanted != current or wanted in HIT_STEPS:
            self._overlay = _OVERLAYS.index(wanted)
            self._overlay_step = 1
            if wanted == "punch":
                self._punch_arm = -self._punch_arm if current == "punch" else 1
        else:
            self._overlay_step += 1

    def _move(self, name: str) -> None:
        kicking = _OVERLAYS[self._overlay] == "kick"
        if not self.airborne:
            target = 0.0 if kicking else _GROUND_SPEEDS.get(name, 0.0)
            if name in _JUMP_SPEEDS and not kicking:
                self._jump_step = 1
                push = _JUMP_SPEEDS[name]
                self._jump_lead = 1 if math.cos(2.0 * math.pi * self._phase) > 0.0 else -1
                if push and self.velocity * push < push * push:
                    self.velocity = push
                target = self.velocity
            speeding_up = self.velocity * target >= 0.0 and abs(target) > abs(self.velocity)
            limit = SPEED_UP if speeding_up else SLOW_DOWN
            self.velocity = _approach(self.velocity, target, limit)
            if target:
                self.facing = 1 if target > 0.0 else -1
        else:
            self._jump_step += 1
            if self._jump_step >= JUMP_STEPS:
                self._jump_step = 0
                self._landing = LANDING_STEPS
        share = self._jump_step / JUMP_STEPS
        self.height = 4.0 * JUMP_PEAK * share * (1.0 - share)
        self.crouching = name == "crouch" and not self.airborne and not kicking
        self.x += self.velocity
        if not self.airborne:
            run = _runs(abs(self.velocity))
            stride = WALK_STRIDE + (RUN_STRIDE - WALK_STRIDE) * run
            self._phase = (self._phase + self.velocity * self.facing / stride) % 1.0

    def _motion_key(self, base: int) -> int:
        """Return a number that changes exactly when the pose has to blend."""
        punch_arm = _OVERLAYS[self._overlay] == "punch" and self._punch_arm < 0
        return base + 4 * self._overlay + 32 * (self.facing > 0) + 64 * punch_arm

    def _step_pose(self, name: str, hands: tuple[float, float]) -> None:
        if self.airborne:
            base = _AIR
        elif self.crouching:
            base = _CROUCH
        else:
            base = _GAIT if abs(self.velocity) > 0.5 else _STAND
        target = self._target_pose(base, hands)
        motion = self._motion_key(base)
        if motion != self._motion:
            self._motion = motion
            self._offset = Pose(*(a - b for a, b in zip(self._pose, target, strict=True)))
            self._blend_step = 0
            self._blend_steps = 4 if _OVERLAYS[self._overlay] in HIT_STEPS else 5
        self._blend_step = min(self._blend_step + 1, self._blend_steps)
        share = self._blend_step / self._blend_steps
        weight = 1.0 - smooth(share)
        pose = Pose(*(b + d * weight for b, d in zip(target, self._offset, strict=True)))
        # A foot that has to go elsewhere steps there instead of sliding.
        hop = 0.25 * math.sin(math.pi * share)
        self._pose = pose._replace(
            foot_l_up=max(0.0, pose.foot_l_up + hop * abs(self._offset.foot_l_x)),
            foot_r_up=max(0.0, pose.foot_r_up + hop * abs(self._offset.foot_r_x)),
        )

    def _target_pose(self, base: int, hands: tuple[float, float]) -> Pose:
        speed = abs(self.velocity)
        if base == _AIR:
            pose = air_pose(
                self._jump_step / JUMP_STEPS,
                moving=smooth(speed / WALK_SPEED),
                fast=_runs(speed),
                lead=self._jump_lead,
            )
        elif base == _CROUCH:
            pose = crouch_pose(self._clock)
        elif base == _GAIT:
            run = _runs(speed)
            pose = walk_pose(self._phase)
            if run > 0.0:
                pose = mix(pose, run_pose(self._phase), run)
        else:
            pose = stand_pose(self._clock)
        pose = self._with_overlay(pose, base, hands)
        return pose._replace(drop=pose.drop + 9.0 * (self._landing / LANDING_STEPS) ** 1.5)

    def _with_overlay(self, pose: Pose, base: int, hands: tuple[float, float]) -> Pose:
        """Return the pose with a speaker's arms, a wave, punch or kick laid over it."""
        kind = _OVERLAYS[self._overlay]
        speaks = kind in ("none", "talk")
        if speaks and base != _STAND:
            return pose
        step = float(self._overlay_step)
        # The near side acts: the character's right while it faces right.
        near, far = ("r", "l") if self.facing > 0 else ("l", "r")
        sign = 1.0 if near == "l" else -1.0
        changes: dict[str, float] = {}
        if kind == "wave":
            swing = math.sin(2.0 * math.pi * step / 9.0)
            # The arm behind the head does not hide the face.
            changes = {f"arm_{far}": 1.95 + 0.06 * swing, f"elbow_{far}": 0.85 + 0.6 * swing}
            changes |= {"nod": pose.nod - 0.05, "lean": pose.lean - 0.04}
        elif speaks:
            raised = {
                f"arm_{near}": (hands[0], 0.62),
                f"elbow_{near}": (hands[0], 1.75),
                f"arm_{far}": (hands[1], 0.72),
                f"elbow_{far}": (hands[1], 1.45),
            }
            for joint, (share, highest) in raised.items():
                lowest = getattr(pose, joint)
                changes[joint] = lowest + (highest - lowest) * share
            beat = hands[0] - hands[1]
            changes |= {"nod": pose.nod + 0.05 * beat, "lean": pose.lean + 0.03 * hands[1]}
        elif kind == "punch":
            front, back = far, near
            if self._punch_arm < 0:
                near, far, sign = far, near, -sign
            thrust = smooth((step - 1.0) / 2.0) * (1.0 - smooth((step - 5.0) / 2.5))
            arm, elbow = hermite(_PUNCH_KEYS, step)
            changes = {f"arm_{near}": arm, f"elbow_{near}": elbow}
            changes |= {f"arm_{far}": 0.35, f"elbow_{far}": 2.0}
            changes |= {"lean": pose.lean + 0.2 * thrust, "twist": sign * (1.1 * thrust - 0.35)}
            if base == _STAND:
                changes |= {f"foot_{front}_x": 11.0, f"foot_{back}_x": -11.0, "drop": 4.0}
        else:
            x, up = hermite(_KICK_KEYS, step)
            power = up / 33.0
            changes = {f"foot_{near}_x": x, f"foot_{near}_up": up, f"foot_{far}_x": -1.0}
            changes |= {"lean": -0.38 * power, "nod": 0.3 * power, "twist": -0.3 * sign * power}
            guard = {f"arm_{near}": -0.7, f"elbow_{near}": 0.7, f"arm_{far}": 0.9}
            for joint, angle in (guard | {f"elbow_{far}": 1.5, "drop": 1.0}).items():
                start = getattr(pose, joint)
                changes[joint] = start + (angle - start) * power
        return pose._replace(**changes)

    def keypoints(self) -> np.ndarray:
        """Return the keypoints, (15, 2) float32 screen px, of the pose at screen x 160."""
        return pose_keypoints(self._pose, height=self.height, turn=self.turn)

    def eye_open(self) -> float:
        """Return how far the eyes are open, 0 to 1; a function of the step counter alone."""
        for period, start in ((67, 41), (149, 88)):
            since = self._clock % period - start
            if 0 <= since < 4:
                return (0.45, 0.0, 0.1, 0.6)[since]
        return 1.0

    def state(self) -> np.ndarray:
        """Return everything the future depends on, as a float64 vector of fixed size."""
        numbers = [getattr(self, name) for name in _STATE]
        return np.array([*numbers, *self._pose, *self._offset], dtype=np.float64)

    def load_state(self, vector: np.ndarray) -> None:
        """Continue from a vector that `state` returned.

        Raises:
            ValueError: The vector has another size.
        """
        size = self.state().size
        if vector.shape != (size,):
            raise ValueError(f"state must have shape ({size},), got {vector.shape}")
        values = iter(vector.tolist())
        for name, kind in _STATE.items():
            setattr(self, name, kind(next(values)))
        self._pose = Pose(*islice(values, len(Pose._fields)))
        self._offset = Pose(*values)
