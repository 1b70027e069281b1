"""Losses on pictures: of the error, with its gradient written out, and of the local energy.

Composed of PyTorch's own operations, loss and backward pass read and write some twenty pictures;
written out they take half the time, a fifth of a whole train step on a CPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ENERGY_CELL = 32
LUMA = (0.299, 0.587, 0.114)  # BT.601


class PictureLoss(torch.autograd.Function):
    """mean(w |e|) + s mean(w e^2) + g (mean(w |dx e|) + mean(w |dy e|)).

    e is the error, dx and dy its differences between neighbouring columns and rows, w a weight of
    each pixel, s and g the weights of the terms. Only the error gets a gradient.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, error: Tensor, weight: Tensor, squared_weight: float, gradient_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its first term; error (B, 3, H, W) float32, weight (B, 1, H, W)."""
        count = error.numel()
        gradient = error.sign()
        weighted = weight * error
        absolute = torch.dot(weighted.flatten(), gradient.flatten()) / count
        squared = torch.dot(weighted.flatten(), error.flatten()) / count
        gradient.mul_(weight).add_(weighted, alpha=2.0 * squared_weight).div_(count)
        loss = absolute + squared_weight * squared
        for dim in (-1, -2):
            size = error.shape[dim] - 1
            difference = error.diff(dim=dim)
            slope = difference.sign().mul_(weight.narrow(dim, 1, size))
            loss = loss + gradient_weight * difference.mul_(slope).mean()
            scale = gradient_weight / difference.numel()
            gradient.narrow(dim, 1, size).add_(slope, alpha=scale)
            gradient.narrow(dim, 0, size).sub_(slope, alpha=scale)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(absolute)
        return loss, absolute

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_loss: Tensor, _: Tensor
    ) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the error."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_loss, None, None, None


def picture_losses(
    made: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    squared_weight: float,
    gradient_weight: float,
    most_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """Return the loss of the error and that of the local gradient energy.

    The latter is a share of each picture's own energy: of what is dim, by night or in fog, the same
    blur takes as much as of what is bright.

    Args:
        made: (B, 3, H, W) float32 in [-1, 1].
        target: The same.
        weight: (B, 1, h, w) of each place of the fine grid.
        squared_weight: s of `PictureLoss`.
        gradient_weight: g of `PictureLoss`.
        most_weight: That a place can have.
    """
    pixels = functional.interpolate(weight.clamp(max=most_weight), size=target.shape[2:])
    error, _ = PictureLoss.apply(made - target, pixels, squared_weight, gradient_weight)
    wanted = local_energy(target)
    cells = functional.avg_pool2d(pixels, _ENERGY_CELL)
    off = ((local_energy(made) - wanted).abs() * cells).sum(dim=(1, 2, 3))
    return error, (off / (wanted * cells).sum(dim=(1, 2, 3)).clamp_min(1e-6)).mean()


def local_energy(frames: Tensor) -> Tensor:
    """Return the root mean square of luma's gradients in cells of 32 px.

    In a cell so large the energy may lie elsewhere than in the target: what cannot be known must
    not be blurred for that.

    (B, 3, H, W) -> (B, 1, H // 32, W // 32), in the frames' units per px.
    """
    luma = (frames * frames.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    down = functional.pad(luma.diff(dim=2), (0, 0, 0, 1))
    right = functional.pad(luma.diff(dim=3), (0, 1))
    # Below a level of 255 nothing is seen, and the root would have no slope.
    return (functional.avg_pool2d(down**2 + right**2, _ENERGY_CELL) + 1e-4).sqrt()
