"""Two real processes, started by torchrun, stream one folder of shards between them."""

import json

from tests.processes import run_two_processes
from tests.shard_data import every_frame

WORKER = """
import json
import sys
from pathlib import Path

import torch
from torch import distributed

from midas_world.data.shard_index import (open_shards)
from midas_world.train.processes import start_processes
from midas_world.train.stream import FrameStream, StreamOptions, make_loader

url, output = sys.argv[1:]
processes = start_processes(torch.device("cpu"))
stream = FrameStream(
    open_shards(url),
    StreamOptions(batch_size=4, passes=1, shuffle_frames=8),
    rank=processes.rank,
    num_ranks=processes.count,
)
processes.wait()  # from here on both are there, and read at the same time
frames = [frame[0, 0, :2].tolist() for batch in make_loader(stream) for frame in batch["frames"]]
found = {"count": distributed.get_world_size(), "shards": stream.shards_of(0, 0), "frames": frames}
Path(output, f"rank-{processes.rank}.json").write_text(json.dumps(found))
distributed.destroy_process_group()
"""


def test_two_processes_read_disjoint_shards_and_together_every_frame_once(shards, tmp_path):
    run_two_processes(WORKER, tmp_path, f"{shards}/train", tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["count"] == second["count"] == 2
    assert sorted(first["shards"] + second["shards"]) == list(range(6))
    seeds = [{seed for seed, _ in found["frames"]} for found in (first, second)]
    # Six shards of two episodes: each process reads three, and none that the other does.
    assert len(seeds[0]) == len(seeds[1]) == 6
    assert not seeds[0] & seeds[1]
    read = sorted(tuple(frame) for frame in first["frames"] + second["frames"])
    assert read == every_frame(range(1, 13))
