"""Encodes shards of frames into sibling shards of latents, once per autoencoder.

They lie beside the frames' shards, in a folder named after the hash of the encoder: another encoder
has another folder. Each shard remembers the digest of the one it was made from, so that one that
was packed anew is encoded anew, and a call that was stopped goes on with the next.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import safetensors.numpy
import torch
from tqdm import tqdm

from midas_world.autoencoder import Autoencoder
from midas_world.episodes import HEADER, STEPS
from midas_world.shards import (
    Losses,
    Part,
    Sample,
    Shard,
    ShardFolder,
    fingerprint_of,
    has_shards,
    join,
    open_shards,
    read_samples,
    save_index,
    write_shard,
)
from midas_world.train.latents import encode_frames, encoder_hash
from midas_world.train.stream import LATENTS, load_sample

ONE_PART = Part()


def latents_url(url: str, autoencoder: Autoencoder) -> str:
    """Return where the latents of a folder of shards lie for this encoder."""
    return join(url, f"latents-{encoder_hash(autoencoder)}")


def missing_latents(url: str, autoencoder: Autoencoder) -> list[Shard]:
    """Return the shards of frames in a folder that this encoder has not encoded yet."""
    latents = latents_url(url, autoencoder)
    made = {s.source for s in open_shards(latents).shards} if has_shards(latents) else set()
    return [shard for shard in open_shards(url).shards if shard.digest not in made]


def encode_shards(
    url: str, autoencoder: Autoencoder, *, device: torch.device, part: Part = ONE_PART
) -> ShardFolder:
    """Encode the shards of a folder that this encoder has not encoded before.

    Args:
        url: Folder of shards of frames.
        autoencoder: In evaluation mode, on `device`.
        device: Where it runs.
        part: Only this part of the shards, so that several machines can share the work.

    Returns:
        The latents' folder, of this part alone.

    Raises:
        ShardError: There are no shards, or their frames have a size that does not fit.
    """
    frames = open_shards(url)
    output = latents_url(url, autoencoder)
    made = _made(output, index=part.index)
    wanted = [shard for shard in frames.shards if part.holds(shard.name)]
    entries = {s.name: made[s.digest] for s in wanted if s.digest in made}
    latents = replace(frames, url=output, kind="latents", shards=())
    losses = Losses()
    for shard in tqdm(wanted, desc="encode", unit="shard", mininterval=5.0):
        if shard.name not in entries:
            samples = read_samples(url, shard, losses)
            encoded = write_shard(output, shard.name, _encoded(samples, autoencoder, device=device))
            skipped = shard.num_episodes - encoded.num_episodes
            entries[shard.name] = replace(encoded, source=shard.digest, num_skipped=skipped)
            latents = replace(latents, shards=tuple(entries[name] for name in sorted(entries)))
            save_index(latents, index=part.index)
    latents = replace(latents, shards=tuple(entries[name] for name in sorted(entries)))
    save_index(latents, index=part.index)
    return latents


def _made(url: str, *, index: str) -> dict[str, Shard]:
    """Return the shards of latents that exist, by the digest of what they were made from."""
    try:
        folder = open_shards(url, index=index)
    except FileNotFoundError:
        return {}
    return {shard.source: shard for shard in folder.shards}


def _encoded(
    samples: Iterator[Sample], autoencoder: Autoencoder, *, device: torch.device
) -> Iterator[Sample]:
    for sample in samples:
        pixels = load_sample(sample).frames
        latents = encode_frames(pixels, autoencoder, device=device).numpy()
        yield latents_sample(sample, latents)


def latents_sample(sample: Sample, latents: np.ndarray) -> Sample:
    """Return a sample with latents (T + 1, N, C) float16 in place of frames."""
    files = {
        STEPS: sample.files[STEPS],
        LATENTS: safetensors.numpy.save({"latents": np.ascontiguousarray(latents)}),
    }
    fingerprints = {name: fingerprint_of(content) for name, content in files.items()}
    header = {**sample.header, "format": "midas-world latents", "files": fingerprints}
    text = json.dumps(header, indent=1).encode()
    return Sample(name=sample.name, files={HEADER: text, **files}, header=header)
