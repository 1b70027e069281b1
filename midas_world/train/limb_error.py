"""What an error of latents is in the picture, where limbs are.

Shapes: B batch, F frames, N tokens per frame, C latent channels, S points of a map.
"""

import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder
from midas_world.conditions import ConditionEncoder
from midas_world.klt import CellTransform


class LimbError(nn.Module):
    """The error of the picture where limbs are, which is little of a cell and all of a gesture.

    Latents know no place within a cell. A linear autoencoder's picture of an error, as coarse as
    the pose guider's maps, is one product.

    Args:
        transform: The autoencoder's.
        scale: (C,) what one unit of an error is in raw latents.
        side: Points of a map along its side.
    """

    pictures: Tensor

    def __init__(self, transform: CellTransform, scale: Tensor, *, side: int) -> None:
        super().__init__()
        rows, size = transform.num_rows, transform.side
        basis = transform.basis.detach().float().view(-1, 3, size, size)
        coarse = nn.functional.adaptive_avg_pool2d(basis, side).flatten(1).unflatten(0, (rows, -1))
        gain = transform.gain.detach().float().view(rows, -1)
        pictures = coarse * (scale / gain)[..., None]
        # In units in which an error that is spread evenly over the cell counts as among latents.
        unit = ((scale / gain).square().sum(dim=1) / (3 * size**2)).sqrt()
        pictures = pictures / unit[:, None, None]
        self.register_buffer("pictures", pictures, persistent=False)

    def forward(self, error: Tensor, maps: Tensor) -> Tensor:
        """Return the mean squared error on limbs.

        Args:
            error: (B, F, N, C) of latents, in units of the usual change.
            maps: (B, F, N, S) how near each point of a cell is to a limb, 0 to 1.
        """
        rows = error.unflatten(2, (len(self.pictures), -1)).unbind(2)
        picture = torch.stack(
            [row @ basis for row, basis in zip(rows, self.pictures, strict=True)], dim=2
        )
        squared = picture.flatten(2, 3).unflatten(-1, (3, -1)).float().square().mean(dim=-2)
        return (maps * squared).sum() / maps.sum().clamp_min(1.0)


def make_limb_error(
    conditions: ConditionEncoder, coder: Autoencoder, change_std: Tensor
) -> LimbError:
    """Return the error on the limbs of a pose guider.

    Args:
        conditions: With the guider.
        coder: Whose latents they are; a transform.
        change_std: (C,) the units in which errors come.

    Raises:
        ValueError: There is no pose guider, or the autoencoder is no transform.
    """
    guider = None if conditions.renderer is None else conditions.renderer.guider
    if guider is None or not isinstance(coder.decoder, CellTransform):
        raise ValueError(
            "limb_weight needs a pose guider (conditions.limbs) and an autoencoder that is a "
            "transform (autoencoder.transform_rows)"
        )
    return LimbError(coder.decoder, change_std * coder.latent_std, side=guider.config.side)
