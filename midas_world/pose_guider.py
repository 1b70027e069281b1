"""The pose guider: limbs drawn as maps in every cell, and a network that paints over them.

Skeleton maps tell a network where limbs lie far better than the keypoints' numbers do; pose-guided
video models read them with a light encoder (the pose guider of arXiv 2311.17117), and so do we. A
renderer of numbers alone blurs what is rare: a stretched arm, a kicking leg.

Shapes: B batch, F frames, N cells in a grid h w, K keypoints, L limbs, S points of a cell's map,
R width of the renderer's features, H width of the hidden layers, C latent channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.conditions_config import LimbsConfig
from midas_world.klt import CellTransform
from midas_world.skeleton_maps import limb_maps

# Cells with a keypoint as near as this to their centres are painted; limbs are shorter than a cell.
NEAR_CELLS = 0.9
# Paint is many times the size of what it is made of: so the layers before it need not grow for it.
_PAINT_GAIN = 4.0


def is_near(keypoints: Tensor) -> Tensor:
    """Return which cells may hold a limb, (..., K, 2) from their centres, in cells -> (...)."""
    return (keypoints.abs().amax(dim=-1) < NEAR_CELLS).any(dim=-1)


class PoseGuider(nn.Module):
    """Paint limbs into a frame's latents.

    Each point of a cell's map is told how near it lies to each limb. Two layers over points, their
    channels scaled and shifted by what the renderer knows of the cell (clothes, light, what lies
    behind), paint a small picture of the cell, from which a linear map for each row of cells makes
    latents.

    Args:
        config: Which limbs, and how they are drawn.
        feature_width: R.
        grid: (h, w) of the latent grid.
        latent_channels: C.
    """

    first: Tensor
    last: Tensor
    points: Tensor

    def __init__(
        self,
        config: LimbsConfig,
        *,
        feature_width: int,
        grid: tuple[int, int],
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        width = config.width
        self.input = nn.Linear(len(config.limbs), width)
        self.hidden = nn.Linear(width, width)
        self.paint = nn.Linear(width, config.channels)
        self.modulation = nn.Linear(feature_width, 4 * width)
        size = config.channels * config.side**2
        self.rows = nn.ModuleList(
            [nn.Linear(size, latent_channels, bias=False) for _ in range(grid[0])]
        )
        nn.init.zeros_(self.paint.weight)
        nn.init.zeros_(self.paint.bias)
        # Buffers: tensors made of numbers would stop a GPU, and be refused by CUDA graphs.
        first, last = torch.tensor(config.limbs, dtype=torch.int64).unbind(dim=1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("last", last, persistent=False)
        along = (torch.arange(config.side) + 0.5) / config.side - 0.5
        y, x = torch.meshgrid(along, along, indexing="ij")
        self.register_buffer("points", torch.stack((x, y)).flatten(1), persistent=False)

    @torch.no_grad()
    def fit(self, transform: CellTransform, latent_std: Tensor) -> None:
        """Let the first three channels be red, green and blue from the start, in [-1, 1].

        What a coarse picture is in latents, a linear autoencoder knows; else it has to be learned.

        Args:
            transform: The autoencoder's.
            latent_std: (C,) of the autoencoder.

        Raises:
            ValueError: Points have fewer than three channels.
        """
        config, side = self.config, transform.side
        if config.channels < 3:
            raise ValueError(f"channels must be at least 3 to fit, got {config.channels}")
        count = config.side**2
        points = torch.eye(count).view(count, 1, config.side, config.side)
        points = functional.interpolate(points, size=(side, side), mode="bilinear").flatten(1)
        basis = transform.basis.float().view(len(self.rows), -1, 3, side**2)
        gain = transform.gain.float().view(len(self.rows), -1)
        for row, cells, factor in zip(self.rows, basis, gain / latent_std, strict=True):
            assert isinstance(row, nn.Linear)
            colours = torch.einsum("cdp,sp->csd", cells, points.to(cells)) * factor[:, None, None]
            weight = row.weight.view(len(cells), count, config.channels)
            weight.zero_()
            weight[..., :3] = colours

    def forward(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Return what to add to the latents, (B, F, N, C).

        Args:
            keypoints: (B, F, N, K, 2) from each cell's centre, in cells.
            features: (B, F, N, R) of the renderer.
        """
        picture = self.pictures(keypoints, features)
        # Play may have these layers in bfloat16; the maps before them stay in float32.
        first = self.rows[0]
        assert isinstance(first, nn.Linear)
        cells = picture.unflatten(2, self.grid).to(first.weight.dtype)
        rows = zip(self.rows, cells.unbind(2), strict=True)
        # As matrices: for products of more dimensions, torch would copy the weights at every step.
        made = [layer(row.flatten(0, 2)).unflatten(0, row.shape[:3]) for layer, row in rows]
        return torch.stack(made, dim=2).flatten(2, 3)

    def pictures(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Return pictures of all cells, (..., S * channels), black where no keypoint is near."""
        if self.training:
            return self.near_pictures(keypoints, features)
        # How many cells are near, a GPU would have to be waited for to know.
        return self._picture(keypoints, features) * is_near(keypoints)[..., None]

    def near_pictures(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Return what `pictures` does; two cells in three hold no limb, and points are many."""
        near = is_near(keypoints)
        where = near.nonzero(as_tuple=True)
        painted = self._picture(keypoints[where], features[where])
        return painted.new_zeros(*near.shape, painted.shape[-1]).index_put(where, painted)

    def _picture(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Return cells painted, (..., S * channels), from (..., K, 2) and (..., R)."""
        modulation = self.modulation(features)[..., None, :]
        scale_1, shift_1, scale_2, shift_2 = modulation.chunk(4, dim=-1)
        x = functional.silu(self.input(self.maps(keypoints)) * (1.0 + scale_1) + shift_1)
        x = functional.silu(self.hidden(x) * (1.0 + scale_2) + shift_2)
        return _PAINT_GAIN * self.paint(x).flatten(-2)

    def maps(self, keypoints: Tensor) -> Tensor:
        """Return skeleton maps, (..., K, 2) -> (..., S, L): 1 on a limb's bone, 0 from reach on."""
        return limb_maps(
            keypoints, self.points, first=self.first, last=self.last, reach=self.config.reach
        )
