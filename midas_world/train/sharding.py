"""Training with the weights split over the processes, by PyTorch's FSDP2.

Every process holds its rows of each weight, and of that weight's gradient, average and optimizer
state. A layer is whole only while it computes. Files stay whole: the first process gathers what it
writes, and every process takes its rows of what it reads. Knows nothing of what is learned.

A share is a `DTensor` split along its first dimension, as ``torch.chunk`` would split it. PyTorch's
modules for it are imported where they are needed: they take half a second, which a run that is not
split need not wait.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Shards:
    """A module split over all processes.

    The module it is given stays for evaluation: it has no weights but inside `holding`, and shares
    its buffers, which are not split, with the trained copy.

    Args:
        module: On the CPU, equal in all processes; its weights are taken away.
        device: Where it trains.
        bf16: Gather layers in bfloat16, as autocast would compute with them; half the traffic.

    Attributes:
        trained: The copy that is called and trained.
    """

    def __init__(self, module: nn.Module, *, device: torch.device, bf16: bool) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self._plain = module
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()  # nothing else can be split
        tensors = [*module.parameters(), *module.buffers()]
        self.trained = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
        # Let go of before sharding, so that no more than one layer is ever whole on the device.
        empty = {name: torch.empty_like(p, device="meta") for name, p in module.named_parameters()}
        module.load_state_dict(empty, assign=True, strict=False)
        mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        for parts in list(_layers(self.trained)):
            fully_shard(parts, mesh=mesh, mp_policy=policy)
        fully_shard(self.trained, mesh=mesh)
        self._device = device
        self._resting = module.state_dict()

    def gather(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Return whole copies in the first process, nothing in others; all must call it alike."""
        is_first = distributed.get_rank() == 0
        kept: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            value = whole(tensor)
            if is_first:
                kept[name] = value.detach().to(device, copy=True)
        return kept

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Put the tensors, whole, into the first process's plain module; all must enter."""
        gathered = self.gather(tensors, self._device)
        if gathered:
            self._plain.load_state_dict(gathered, assign=True)
        del gathered
        self._plain.eval()
        try:
            yield
        finally:
            self._plain.load_state_dict(self._resting, assign=True)
            self._plain.train()


def is_split(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether this process holds only a share of the tensor."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """Return this process's share, in the same memory; any other tensor as it is."""
    return tensor.to_local() if is_split(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a split tensor whole, for which all processes must call; any other as it is."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def own_rows(tensor: Tensor) -> range:
    """Return the rows, of the whole tensor, that this process holds."""
    rows = len(tensor)
    if not is_split(tensor):
        return range(rows)
    mesh = tensor.device_mesh
    share = -(-rows // mesh.size())
    start = min(mesh.get_local_rank() * share, rows)
    return range(start, min(start + share, rows))


def take_share(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's share of a whole tensor, split as another of its shape is.

    Where that one is not split, or of another shape, the tensor comes back as it is.
    """
    if not is_split(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor

    rows = own_rows(like)
    return DTensor.from_local(
        tensor[rows.start : rows.stop].to(like.device, copy=True),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def take_shares(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `take_share` of every tensor whose name both have, and the others as they are."""
    return {n: take_share(t, like[n]) if n in like else t for n, t in tensors.items()}


def _layers(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield what is gathered together: the members of each outermost list of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (_called(layer) for layer in child)
        else:
            yield from _layers(child)


def _called(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a layer that are called, where itself it is not: only calls gather."""
    if type(module).forward is not nn.Module.forward:
        return [module]
    return [part for child in module.children() for part in _called(child)]
