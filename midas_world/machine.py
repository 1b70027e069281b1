"""What this machine is called, and how much memory this process took. Knows no torch."""

import ctypes
import os
import platform
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def cpu_name() -> str:
    """Return what the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float:
    """Return how many processes wanted a core over the last minute; NaN where nothing says so."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def peak_memory_mib() -> float:
    """Return the most memory this process has held, in MiB; NaN where nothing says so."""
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def memory_mib() -> float:
    """Return the memory that this process holds, in MiB; NaN where nothing says so."""
    if not _STATUS.is_file():
        return float("nan")
    words = _STATUS.read_text(encoding="utf-8").partition("VmRSS:")[2]
    return int(words.split()[0]) / 2**10


def give_back_memory() -> None:
    """Let the operating system have what was freed, where the C library (glibc) can."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
