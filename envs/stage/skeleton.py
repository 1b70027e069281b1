"""Skeleton of the Stage character: bones, kinematics, and the poses of its motions.

The body lives in its own frame: `forward` (the way it faces), `up` and `side` (its own left is
positive). `pose_keypoints` turns a `Pose` into joint angles and projects the joints to the screen
in a three-quarter view. The poses of walking, running and so on are functions of a phase; when
which of them plays is the controller's business.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KEYPOINTS: tuple[str, ...] = (
    "head",
    "neck",
    "pelvis",
    "shoulder_l",
    "shoulder_r",
    "elbow_l",
    "elbow_r",
    "wrist_l",
    "wrist_r",
    "hip_l",
    "hip_r",
    "knee_l",
    "knee_r",
    "ankle_l",
    "ankle_r",
)

# Screen anchors, in px: the pelvis never leaves CENTER_X, standing soles rest on GROUND_Y.
CENTER_X = 160.0
GROUND_Y = 168.0

# Bone lengths and half widths, in px.
HEAD = 17.0
SPINE = 27.0
CHEST = 23.5
UPPER_ARM = 15.0
FOREARM = 14.5
THIGH = 20.0
SHIN = 20.0
ANKLE_HEIGHT = 5.0
SHOULDER_HALF_WIDTH = 9.5
HIP_HALF_WIDTH = 5.0
STANDING_PELVIS = ANKLE_HEIGHT + THIGH + SHIN - 0.3

# Share of the body's width that shows when it faces sideways (1 when it faces the viewer).
SIDE_VIEW_WIDTH = 0.5

# Gaits: px of ground per cycle of two steps, share of it that a foot stands.
WALK_STRIDE = 48.0
RUN_STRIDE = 72.0
WALK_DUTY = 0.6
RUN_DUTY = 0.36
# Keys of one swinging foot: (share of the swing, ankle x, ankle lift).
_WALK_SWING = ((0.0, -14.4, 6.5), (0.3, -8.5, 10.0), (0.65, 7.0, 4.5), (1.0, 14.4, 0.0))
_RUN_SWING = (
    (0.0, -15.0, 8.0),
    (0.22, -18.0, 19.0),
    (0.5, -3.0, 21.0),
    (0.78, 15.5, 13.0),
    (1.0, 11.0, 0.0),
)
_TUCK = 12.0


class Pose(NamedTuple):
    """What a motion asks of the body: trunk and arm angles in radians, feet in px.

    Arm angles are measured from straight down, forward positive; elbows bend forward. A foot's x is
    its ankle's distance ahead of the pelvis, its `up` the ankle's lift above standing.
    """

    drop: float
    lean: float
    nod: float
    twist: float
    foot_l_x: float
    foot_l_up: float
    foot_r_x: float
    foot_r_up: float
    arm_l: float
    elbow_l: float
    arm_r: float
    elbow_r: float


def leg_angles(forward: float, down: float) -> tuple[float, float]:
    """Return the absolute (thigh, shin) angles that bring the ankle to a point seen from the hip.

    Args:
        forward: Ankle ahead of the hip, in px.
        down: Ankle below the hip, in px. Points out of reach are approached as far as the leg goes.
    """
    reach = min(max(math.hypot(forward, down), 6.0), THIGH + SHIN - 0.05)
    direction = math.atan2(forward, down)
    cosine = (THIGH**2 + reach**2 - SHIN**2) / (2.0 * THIGH * reach)
    thigh = direction + math.acos(min(1.0, cosine))
    knee_forward, knee_down = THIGH * math.sin(thigh), THIGH * math.cos(thigh)
    end_forward, end_down = reach * math.sin(direction), reach * math.cos(direction)
    return thigh, math.atan2(end_forward - knee_forward, end_down - knee_down)


def pose_keypoints(pose: Pose, *, height: float, turn: float) -> np.ndarray:
    """Return the 15 keypoints on the screen, (15, 2) float32 px in the order of `KEYPOINTS`.

    The legs come from inverse kinematics.

    Args:
        pose: What the body does.
        height: How far it is off the ground, in px.
        turn: -1 faces left, 0 the viewer, +1 right.
    """
    pelvis_up = STANDING_PELVIS - pose.drop + height
    width = SIDE_VIEW_WIDTH + (1.0 - SIDE_VIEW_WIDTH) * math.sqrt(max(0.0, 1.0 - turn * turn))
    lean_x, lean_y = math.sin(pose.lean), math.cos(pose.lean)
    twist_forward, twist_side = math.sin(pose.twist), math.cos(pose.twist)

    def joint(forward: float, up: float, side: float) -> tuple[float, float]:
        return CENTER_X + forward * turn + side * width, GROUND_Y - up

    neck = (SPINE * lean_x, pelvis_up + SPINE * lean_y)
    tilt = 0.6 * pose.lean + pose.nod
    head = (neck[0] + HEAD * math.sin(tilt), neck[1] + HEAD * math.cos(tilt))
    down = STANDING_PELVIS - pose.drop - ANKLE_HEIGHT
    # Arms hang a little off the body, which shows while it faces the viewer.
    arms = []
    legs = []
    for sign, upper, bend, foot_x, foot_up in (
        (1.0, pose.arm_l, pose.elbow_l, pose.foot_l_x, pose.foot_l_up),
        (-1.0, pose.arm_r, pose.elbow_r, pose.foot_r_x, pose.foot_r_up),
    ):
        fore = upper + bend
        side = sign * SHOULDER_HALF_WIDTH * twist_side
        forward = CHEST * lean_x + sign * SHOULDER_HALF_WIDTH * twist_forward
        up = pelvis_up + CHEST * lean_y
        shoulder = joint(forward, up, side)
        forward += UPPER_ARM * math.sin(upper)
        up -= UPPER_ARM * math.cos(upper)
        elbow = joint(forward, up, side + 2.5 * sign)
        forward += FOREARM * math.sin(fore)
        up -= FOREARM * math.cos(fore)
        arms.append((shoulder, elbow, joint(forward, up, side + 3.5 * sign)))

        side = sign * HIP_HALF_WIDTH
        forward = -0.6 * sign * HIP_HALF_WIDTH * twist_forward
        up = pelvis_up
        hip = joint(forward, up, side)
        thigh, shin = leg_angles(foot_x - forward, down - foot_up)
        forward += THIGH * math.sin(thigh)
        up -= THIGH * math.cos(thigh)
        knee = joint(forward, up, side + 0.5 * sign)
        forward += SHIN * math.sin(shin)
        up -= SHIN * math.cos(shin)
        legs.append((hip, knee, joint(forward, up, side + 1.0 * sign)))
    pairs = [point for limb in (arms, legs) for pair in zip(*limb, strict=True) for point in pair]
    return np.array(
        [joint(*head, 0.0), joint(*neck, 0.0), joint(0.0, pelvis_up, 0.0), *pairs], dtype=np.float32
    )


def smooth(value: float) -> float:
    """Return the smoothstep of a value clamped to [0, 1]."""
    value = min(max(value, 0.0), 1.0)
    return value * value * (3.0 - 2.0 * value)


def hermite(
    keys: Sequence[tuple[float, ...]], at: float, *, slope: float | None = None
) -> tuple[float, float]:
    """Return both channels of a Catmull-Rom curve through keys (time, first, second).

    Args:
        keys: At least two keys in rising time; `at` is clamped to them.
        at: Time to read.
        slope: Slope of the first channel at both ends; flat ends where None.
    """
    at = min(max(at, keys[0][0]), keys[-1][0])
    index = next(i for i in range(len(keys) - 1) if at <= keys[i + 1][0])
    start, end = keys[index], keys[index + 1]
    span = end[0] - start[0]
    t = (at - start[0]) / span
    values = []
    for channel in (1, 2):
        slopes = []
        for i in (index, index + 1):
            if 0 < i < len(keys) - 1:
                rise = keys[i + 1][channel] - keys[i - 1][channel]
                slopes.append(rise / (keys[i + 1][0] - keys[i - 1][0]))
            else:
                slopes.append(slope if slope is not None and channel == 1 else 0.0)
        a, b = start[channel], end[channel]
        values.append(
            (1.0 + 2.0 * t) * (1.0 - t) ** 2 * a
            + t * (1.0 - t) ** 2 * span * slopes[0]
            + t * t * (3.0 - 2.0 * t) * b
            + t * t * (t - 1.0) * span * slopes[1]
        )
    return values[0], values[1]


def _foot(
    phase: float, *, duty: float, stride: float, swing: Sequence[tuple[float, ...]]
) -> tuple[float, float]:
    """Return the (x, up) of a foot: it stands still on the ground for `duty`, then swings."""
    phase %= 1.0
    if phase < duty:
        touch_down = swing[-1][1]
        return touch_down - stride * phase, swing[0][2] * smooth((phase / duty - 0.6) / 0.4)
    share = (phase - duty) / (1.0 - duty)
    x, up = hermite(swing, share, slope=-stride * (1.0 - duty))
    return x, max(0.0, up)


def mix(first: Pose, second: Pose, weight: float) -> Pose:
    """Return the pose `weight` of the way from the first to the second."""
    return Pose(*(a + (b - a) * weight for a, b in zip(first, second, strict=True)))


def walk_pose(phase: float) -> Pose:
    """Return the walk at a phase in [0, 1); the left foot touches down at 0."""
    wave = math.cos(2.0 * math.pi * phase)
    left = _foot(phase, duty=WALK_DUTY, stride=WALK_STRIDE, swing=_WALK_SWING)
    right = _foot(phase + 0.5, duty=WALK_DUTY, stride=WALK_STRIDE, swing=_WALK_SWING)
    return Pose(
        drop=1.6 + 1.3 * math.cos(4.0 * math.pi * (phase - 0.04)),
        lean=0.07,
        nod=-0.03 + 0.02 * math.cos(4.0 * math.pi * phase),
        twist=-0.3 * wave,
        foot_l_x=left[0],
        foot_l_up=left[1],
        foot_r_x=right[0],
        foot_r_up=right[1],
        arm_l=0.02 - 0.52 * wave,
        elbow_l=0.42 - 0.3 * wave,
        arm_r=0.02 + 0.52 * wave,
        elbow_r=0.42 + 0.3 * wave,
    )


def run_pose(phase: float) -> Pose:
    """Return the run at a phase in [0, 1); the left foot touches down at 0."""
    wave = math.cos(2.0 * math.pi * (phase + 0.03))
    left = _foot(phase, duty=RUN_DUTY, stride=RUN_STRIDE, swing=_RUN_SWING)
    right = _foot(phase + 0.5, duty=RUN_DUTY, stride=RUN_STRIDE, swing=_RUN_SWING)
    return Pose(
        drop=2.6 + 2.8 * math.cos(4.0 * math.pi * (phase - 0.2)),
        lean=0.3,
        nod=-0.16,
        twist=-0.5 * wave,
        foot_l_x=left[0],
        foot_l_up=left[1],
        foot_r_x=right[0],
        foot_r_up=right[1],
        arm_l=-0.05 - 0.95 * wave,
        elbow_l=1.55 - 0.25 * wave,
        arm_r=-0.05 + 0.95 * wave,
        elbow_r=1.55 + 0.25 * wave,
    )


def stand_pose(clock: float) -> Pose:
    """Return the breathing stand at a time in steps."""
    breath = math.sin(2.0 * math.pi * clock / 48.0)
    late = math.sin(2.0 * math.pi * (clock - 6.0) / 48.0)
    return Pose(
        drop=0.5 - 0.4 * breath,
        lean=0.02 + 0.012 * breath,
        nod=0.015 * late,
        twist=0.04 * late,
        foot_l_x=4.0,
        foot_l_up=0.0,
        foot_r_x=-4.0,
        foot_r_up=0.0,
        arm_l=0.04 + 0.05 * late,
        elbow_l=0.28 + 0.05 * breath,
        arm_r=-0.1 - 0.05 * late,
        elbow_r=0.3 + 0.05 * breath,
    )


def crouch_pose(clock: float) -> Pose:
    """Return the crouch at a time in steps."""
    breath = math.sin(2.0 * math.pi * clock / 48.0)
    return Pose(20.0 - 0.6 * breath, 0.5, -0.28, 0.1, 8, 0, -7, 3.5, 0.4, 1.3, 0.25, 1.5)


def air_pose(share: float, *, moving: float, fast: float, lead: float) -> Pose:
    """Return the pose in mid-air.

    Args:
        share: Share of the jump that is over.
        moving: 0 for a jump on the spot, 1 from walking speed on.
        fast: 0 up to walking speed, 1 at running speed.
        lead: +1 throws the left leg forward, -1 the right one.
    """
    arc = math.sin(math.pi * share)
    split = lead * (1.5 + 5.0 * moving + 10.0 * fast) * math.sin(math.pi * min(1.0, share * 1.1))
    reach = 4.0 * moving * share
    raised = 1.0 - 0.75 * smooth(share * 1.25)
    return Pose(
        drop=-0.6 + 3.0 * share * share,
        lean=0.08 + 0.12 * moving + 0.1 * fast - 0.1 * share,
        nod=-0.12 + 0.2 * share * (1.0 - 0.5 * fast),
        twist=-0.35 * lead * moving * arc,
        foot_l_x=reach + split + 1.0,
        foot_l_up=_TUCK * arc * (1.0 + 0.25 * lead) - 2.0 * fast * arc,
        foot_r_x=reach - split - 1.0,
        foot_r_up=_TUCK * arc * (1.0 - 0.25 * lead) + 3.0 * fast * arc,
        arm_l=2.5 * raised * (1.0 - 0.45 * lead * moving) - 0.2,
        elbow_l=0.35 + 0.5 * arc,
        arm_r=2.5 * raised * (1.0 + 0.45 * lead * moving) - 0.2,
        elbow_r=0.35 + 0.5 * arc,
    )
