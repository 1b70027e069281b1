"""Skeleton maps: where points lie from the limbs of a pose.

Shapes: S points, K keypoints, L limbs, each between two of the keypoints.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# Maps of a limb that `limb_waves` makes.
WAVES_PER_LIMB = 16


def limb_fields(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> Tensor:
    """Return where points lie from limbs, (..., S, 4 L); all of it fades to 0 at reach.

    Of each limb: how near it is, how far along it the nearest place of its bone lies (-1 to 1), and
    the way from there in x and in y, in units of a third of the reach. The maps of one kind lie
    side by side.

    Args:
        keypoints: (..., K, 2), x before y.
        points: (..., 2, S) x and y, in the same unit.
        first: (L,) int64 keypoint at one end of each limb.
        last: (L,) at the other; a limb of one keypoint is a disc.
        reach: Above 0, in the same unit.
    """
    near, along, away = _from_limbs(keypoints, points, first=first, last=last, reach=reach)
    return torch.cat((near, along, *(near * part * (3.0 / reach) for part in away)), dim=-1)


def limb_waves(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> Tensor:
    """Return where points lie from limbs, told finely, (..., S, 16 L); fades to 0 at reach.

    What `limb_fields` says, and sines and cosines of the way in x and y at periods of twice the
    reach, the reach and half of it (Fourier features, Tancik et al. 2020, arXiv 2006.10739): a
    network learns outlines from them that are finer than its grid. The maps of one kind lie side
    by side. Arguments as in `limb_fields`.
    """
    near, along, away = _from_limbs(keypoints, points, first=first, last=last, reach=reach)
    parts = [near, along, *(near * part * (3.0 / reach) for part in away)]
    for part in away:
        for count in (1, 2, 4):
            angle = part * (math.pi * count / reach)
            parts += [near * angle.sin(), near * angle.cos()]
    return torch.cat(parts, dim=-1)


def _from_limbs(
    keypoints: Tensor, points: Tensor, *, first: Tensor, last: Tensor, reach: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return nearness, place along the bone, and the way from the bone, each (..., S, L)."""
    start = keypoints[..., first, :].float()  # (..., L, 2)
    bone = keypoints[..., last, :].float() - start
    squared = bone.square().sum(dim=-1).clamp_min(1e-6)
    x, y = points[..., None].unbind(-3)
    bone_x, bone_y = bone[..., None, :, :].unbind(-1)
    from_x, from_y = (x - start[..., None, :, 0]), (y - start[..., None, :, 1])
    share = (from_x * bone_x + from_y * bone_y) / squared[..., None, :]
    share = share.clamp(0.0, 1.0)  # of the bone before the nearest place
    away = from_x - share * bone_x, from_y - share * bone_y
    distance = away[0].square() + away[1].square()
    # The small number keeps the root away from 0, where exported graphs may lose it.
    near = functional.relu(1.0 - (distance + 1e-8).sqrt() / reach)
    return near, near * (2.0 * share - 1.0), away
