"""The processes that train together, and that no other training is at work in their folder."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

import torch
from torch import distributed

from midas_world.locks import alone_in

_Options = ParamSpec("_Options")


@dataclass(frozen=True)
class Processes:
    """Which process of how many this is; 0 of 1 without ``torchrun``."""

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process write the caches inside, and the others then find them."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


def start_processes(device: torch.device) -> Processes:
    """Join the other processes if ``torchrun`` started this one, else stay alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank=int(os.environ.get("RANK", "0")), count=count)


def alone(train: Callable[_Options, Path]) -> Callable[_Options, Path]:
    """Let a training, which has an argument `folder`, raise BusyError if another is in there.

    Of several processes, the first one speaks for all.
    """

    @functools.wraps(train)
    def train_alone(*arguments: _Options.args, **options: _Options.kwargs) -> Path:
        folder = inspect.signature(train).bind(*arguments, **options).arguments["folder"]
        is_first = os.environ.get("RANK", "0") == "0"
        with alone_in(folder) if is_first else nullcontext():
            return train(*arguments, **options)

    return train_alone
