"""Torch as it is when a process begins, whatever the caller's process has set.

Games last longer than the caller's blocks: a step may stand in one of `inference_mode` or autocast
and the next one not, and a default dtype or device is for the caller's own tensors.

Nor do torch's threads outlive a fork, as `AsyncVectorEnv` and others make one: in a process that
was forked, torch works with one thread, as it does in a DataLoader's.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_num_inside = 0
_callers_dtype = torch.float32
_has_lost_threads = False


def _note_fork() -> None:
    global _has_lost_threads, _lock, _num_inside
    _has_lost_threads, _lock, _num_inside = True, threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class plain_torch(contextlib.ContextDecorator):  # noqa: N801 - as contextlib's own
    """Run a block, or a decorated function, without gradients and with torch's first settings.

    The default dtype is the whole process's: it comes back when the last thread is out. Games
    enter this at every step, so what is plain already costs a few checks.
    """

    def __enter__(self) -> None:
        _count_threads()
        self._stack = contextlib.ExitStack()
        _enter_dtype()
        self._stack.callback(_leave_dtype)
        self._stack.enter_context(torch.no_grad())
        if torch.is_inference_mode_enabled():
            self._stack.enter_context(torch.inference_mode(mode=False))
            self._stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                self._stack.enter_context(torch.autocast(device, enabled=False))
        if torch.empty(0).device.type != "cpu":  # ten times faster than to ask for the default
            self._stack.enter_context(torch.device("cpu"))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _recreate_cm(self) -> "plain_torch":
        return plain_torch()  # each call of a decorated function has its own


@contextlib.contextmanager
def kept_random_stream() -> Iterator[None]:
    """Give torch's global random stream of the CPU back as it was; new networks draw from it."""
    with torch.random.fork_rng(devices=()):
        yield


def _count_threads() -> None:
    """Let torch wait for no thread that was left behind by a fork."""
    global _has_lost_threads
    if _has_lost_threads:
        torch.set_num_threads(1)
        _has_lost_threads = False


def _enter_dtype() -> None:
    global _num_inside, _callers_dtype
    with _lock:
        if not _num_inside:
            _callers_dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _num_inside += 1


def _leave_dtype() -> None:
    global _num_inside
    with _lock:
        _num_inside -= 1
        if not _num_inside:
            torch.set_default_dtype(_callers_dtype)
