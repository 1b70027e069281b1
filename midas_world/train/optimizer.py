"""The optimizer: Muon for the weights inside the network, AdamW for the rest.

Muon (Jordan et al. 2024) orthogonalises the momentum of each weight matrix, here in blocks of rows
and on the small Gram matrix, which on a CPU is several times cheaper than the published iteration
and gives the same polynomial. Updates are scaled to the root mean square of AdamW's (Liu et al.
2025, arXiv 2502.16982), so that both share one schedule.

Where the weights are split over processes, every step gathers each matrix's momentum once, and each
process orthogonalises the blocks that it has rows of.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from midas_world.config import OptimizerConfig
from midas_world.train.sharding import local, own_rows, whole

# The first and last layers of a network keep AdamW, as Muon's authors advise.
EDGE_LAYERS = frozenset(
    ["conv_in", "conv_out", "input", "output", "latent_in", "modulation", "slots", "entry_in"]
)
BLOCK_ROWS = 128
# The quintic of Jordan et al.: five rounds bring singular values near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return the matrix with singular values near 1, (rows, columns), float32.

    With X the matrix and A = X X^T, each round is X <- (a + b A + c A^2) X. All rounds are
    polynomials of the first A, so they are multiplied up on A's size and applied once.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product: Tensor | None = None
    for index in range(ROUNDS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if index + 1 < ROUNDS:
            gram = factor @ gram @ factor
    assert product is not None
    x = product @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Step along the orthogonalised Nesterov momentum of linear and convolution weights."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one update of every parameter that has a gradient; no closure is used."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1.0 - group["momentum"])
        update = whole(gradient.lerp(state["momentum"], group["momentum"]))
        # Channels last, as convolution weights lie in memory; (out, everything else).
        matrix = update.movedim(1, -1).flatten(1)
        rows, parameter = own_rows(parameter), local(parameter)
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        if not rows:
            return  # fewer rows than processes
        # The blocks that this process has rows of; all of them, unless the weights are split.
        first = rows.start - rows.start % BLOCK_ROWS
        last = -(-rows.stop // BLOCK_ROWS) * BLOCK_ROWS
        blocks = [orthogonalize(block) for block in matrix[first:last].float().split(BLOCK_ROWS)]
        scale = 0.2 * max(matrix.shape) ** 0.5
        own = torch.cat(blocks)[rows.start - first : rows.stop - first]
        moved = own.view(parameter.movedim(1, -1).shape).movedim(-1, 1)
        parameter.add_(moved.to(parameter.dtype), alpha=-group["lr"] * scale)


def make_optimizers(module: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return the optimizers that together hold every parameter once.

    A group's "peak" is the learning rate that the schedule scales.
    """
    inner = _inner_weights(module) if config.muon_learning_rate > 0 else []
    tables = _tables(module) if config.table_learning_rate > 0 else []
    taken = {id(parameter) for parameter in (*inner, *tables)}
    rest = [p for p in module.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2]},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    if tables:
        rate = config.table_learning_rate
        groups.append({"params": tables, "lr": rate, "weight_decay": 0.0})
    adamw = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if inner:
        rate = config.muon_learning_rate
        optimizers.append(Muon(inner, lr=rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _tables(module: nn.Module) -> list[Tensor]:
    """Return what is looked up: few of its rows have a gradient at a time, so they learn faster."""
    return [
        parameter
        for name, parameter in module.named_parameters()
        if name.endswith(".table") or name.endswith("words.weight")
    ]


def _inner_weights(module: nn.Module) -> list[Tensor]:
    """Return the weights of linear and convolution layers, but for the network's edges."""
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.rpartition(".")[2] not in EDGE_LAYERS
    ]
