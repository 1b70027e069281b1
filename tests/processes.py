"""Two real processes on this machine, started by torchrun as a user would start them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_two_processes(script: str, folder: Path, *arguments: str | Path) -> None:
    """Run a script in both and wait for them; one that fails is a failed assertion.

    Args:
        script: Python source.
        folder: Where the source is written.
        arguments: What the script finds in ``sys.argv[1:]``.
    """
    worker = folder / "worker.py"
    worker.write_text(script)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    result = subprocess.run(
        [sys.executable, *launch, str(worker), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
