"""A linear autoencoder, for worlds that are learned without a GPU.

The Karhunen-Loève transform (principal components) of each row of cells: no linear code of as many
numbers keeps more of the training frames. It is found in two minutes, where networks of the same
size need hours to come near it on a CPU.

Shapes: B batch, h w latent grid, C latent channels, P values of a cell (3 * side * side).
"""

import torch
from torch import Tensor, nn

# Directions beyond those asked for that make the randomised decomposition (Halko et al. 2009) exact
# enough, and its rounds.
_OVERSAMPLING = 32
_ROUNDS = 3


class CellTransform(nn.Module):
    """Cells of a frame to coefficients and back, each row of the grid in its own basis.

    Rows differ (sky, horizon, ground); columns share. Coefficients are scaled to a standard
    deviation that goes with the fourth root of their variance: under noise of equal strength on
    all of them, no other scaling loses less of the picture at equal power.

    Attributes:
        basis: (h * C, P), each row of the grid's vectors orthonormal; until `fit` random ones,
            nearly so.
        mean: (h * P,).
        gain: (h * C,), what coefficients are multiplied by.
    """

    def __init__(self, num_rows: int, channels: int, side: int) -> None:
        super().__init__()
        self.num_rows, self.channels, self.side = num_rows, channels, side
        size = 3 * side * side
        # As matrix and vectors, so that files keep a scale for each vector of the basis.
        self.basis = _fixed(torch.randn(num_rows * channels, size) / size**0.5)
        self.mean = _fixed(torch.zeros(num_rows * size))
        self.gain = _fixed(torch.ones(num_rows * channels))

    def forward(self, latents: Tensor) -> Tensor:
        """Put frames together: raw latents (B, C, h, w) -> (B, 3, H, W)."""
        parts = self._by_row(latents.dtype)
        rows = []
        # A product for each row: with one for all, exported graphs could not be eight-bit.
        for row, basis, mean, gain in zip(latents.unbind(2), *parts, strict=True):
            cells = (row.transpose(1, 2) / gain) @ basis + mean  # (B, w, P)
            rows.append(cells.unflatten(-1, (3, self.side, self.side)))
        return join_cells(torch.stack(rows, dim=1))

    def analyze(self, frames: Tensor) -> Tensor:
        """Take frames (B, 3, H, W) in [-1, 1] apart: (B, C, h, w)."""
        basis, mean, gain = self._by_row(frames.dtype)
        cells = self._cells(frames)
        coefficients = torch.bmm(cells.flatten(1, 2) - mean, basis.transpose(1, 2)) * gain
        return coefficients.unflatten(1, cells.shape[1:3]).permute(1, 3, 0, 2)

    def worth(self) -> Tensor:
        """Return what one unit of each channel is in the picture, (C,), as a mean over rows."""
        return (1.0 / self.gain).view(self.num_rows, self.channels).mean(dim=0)

    @torch.no_grad()
    def fit(self, frames: Tensor, *, device: torch.device | None = None) -> None:
        """Take the basis from frames (B, 3, H, W) uint8; several thousand for hundreds of C.

        Directions that so few frames do not have stay zero. The work is done on ``device``, by
        default where the frames are.
        """
        basis, mean, _ = self._by_row(self.basis.dtype)
        variances = torch.zeros(self.num_rows, self.channels)
        for row in range(self.num_rows):
            band = frames[:, :, row * self.side : (row + 1) * self.side]
            cells = self._cells(band.to(device))[0].flatten(0, 1).float().div_(127.5).sub_(1.0)
            middle = cells.mean(dim=0)
            mean[row, 0] = middle
            cells -= middle
            rank = min(self.channels + _OVERSAMPLING, *cells.shape)
            _, sizes, directions = torch.svd_lowrank(cells, q=rank, niter=_ROUNDS)
            kept = min(self.channels, rank)
            basis[row] = 0.0
            basis[row, :kept] = directions[:, :kept].T.to(basis)
            variances[row, :kept] = (sizes[:kept].square() / len(cells)).to(variances)
        variances.clamp_(min=1e-6 * float(variances.max().clamp_min(1e-12)))
        self.gain.copy_((variances.pow(-0.25) / variances.sqrt().mean().sqrt()).flatten())

    def _by_row(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return basis (h, C, P), mean (h, 1, P) and gain (h, 1, C)."""
        return (
            self.basis.to(dtype).view(self.num_rows, self.channels, -1),
            self.mean.to(dtype).view(self.num_rows, 1, -1),
            self.gain.to(dtype).view(self.num_rows, 1, -1),
        )

    def _cells(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) -> (h, B, w, P)."""
        cells = frames.unflatten(-1, (-1, self.side)).unflatten(-3, (-1, self.side))
        return cells.permute(2, 0, 4, 1, 3, 5).flatten(3)


def join_cells(cells: Tensor) -> Tensor:
    """Put cells (B, h, w, 3, side, side) together to frames (B, 3, H, W)."""
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
