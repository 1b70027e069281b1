"""Skeleton maps: where points lie from the limbs of a pose.

Shapes: S points, K keypoints, L limbs, each between two of the keypoints.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Rings around a limb, and what `limb_frames` says besides.
NUM_RINGS = 8
MAPS_PER_LIMB = NUM_RINGS + 4


def limb_maps(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> Tensor:
    """Return how near points are to limbs, (..., S, L): 1 on a limb's bone, 0 from reach on.

    Args:
        keypoints: (..., K, 2), x before y.
        points: (2, S) x and y, in the same unit.
        first: (L,) int64 keypoint at one end of each limb.
        last: (L,) at the other; a limb of one keypoint is a disc.
        reach: Above 0, in the same unit.
    """
    _, _, near = _from_limbs(keypoints, points, first=first, last=last, reach=reach)
    return near


def limb_frames(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> Tensor:
    """Return where points lie on limbs, (..., S, 4 L); all of it fades to 0 at reach.

    Of each limb: how near it is, how far along it the nearest place of its bone lies (-1 to 1), and
    the way from there in x and in y (1 is reach). The maps of one kind lie side by side. Arguments
    as in `limb_maps`.
    """
    share, away, near = _from_limbs(keypoints, points, first=first, last=last, reach=reach)
    x, y = (near * part / reach for part in away)
    # Outlines are thin: hats over the distance tell them apart, which a network learns late.
    place = torch.arange(NUM_RINGS, device=near.device)[:, None]
    rings = functional.relu(1.0 - (NUM_RINGS * (1.0 - near)[..., None, :] - place).abs())
    return torch.cat((rings.flatten(-2), near, near * (2.0 * share - 1.0), x, y), dim=-1)


def limb_fields(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> Tensor:
    """Return where points lie from limbs, (..., S, 4 L); all of it fades to 0 at reach.

    Of each limb: how near it is, how far along it the nearest place of its bone lies (-1 to 1), and
    the way from there in x and in y, in units of a third of the reach. The maps of one kind lie
    side by side. Arguments as in `limb_maps`.
    """
    share, away, near = _from_limbs(keypoints, points, first=first, last=last, reach=reach)
    x, y = (near * part * (3.0 / reach) for part in away)
    return torch.cat((near, near * (2.0 * share - 1.0), x, y), dim=-1)


def _from_limbs(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Return the share of the bone before the nearest place, the way from there, and nearness."""
    start = keypoints[..., first, :].float()  # (..., L, 2)
    bone = keypoints[..., last, :].float() - start
    squared = bone.square().sum(dim=-1).clamp_min(1e-6)
    (x, y), (bone_x, bone_y) = points[..., None], bone[..., None, :, :].unbind(-1)
    from_x, from_y = (x - start[..., None, :, 0]), (y - start[..., None, :, 1])
    share = (from_x * bone_x + from_y * bone_y) / squared[..., None, :]
    share = share.clamp(0.0, 1.0)
    away = from_x - share * bone_x, from_y - share * bone_y
    distance = away[0].square() + away[1].square()
    # The small number keeps the root away from 0, where exported graphs may lose it.
    return share, away, functional.relu(1.0 - (distance + 1e-8).sqrt() / reach)
