"""A large file as parts that are small enough to commit, and the way back.

    python -m examples.parts join results/results.tar.json out   # joins, checks and unpacks

A manifest beside the parts, NAME.json, tells their order and SHA-256. Needs nothing but Python, and
of this project midas_world/files.py.
"""

import argparse
import hashlib
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from midas_world.files import whole, write_whole

PART_BYTES = 15 * 2**20


class PartsError(Exception):
    """Parts do not make the file that their manifest tells of; the message says which."""


def pack(files: Mapping[str, Path], archive: Path) -> None:
    """Write files under names of their own into a tar archive; equal files, equal archives."""
    with whole(archive) as place, tarfile.open(place, "w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = files[name].stat().st_size, 0o644
            with files[name].open("rb") as file:
                tar.addfile(entry, file)


def split(path: Path, folder: Path, *, part_bytes: int = PART_BYTES) -> Path:
    """Write a file as parts into a folder, in place of older ones; return the manifest's path.

    Raises:
        ValueError: part_bytes is below 1.
    """
    if part_bytes < 1:
        raise ValueError(f"part_bytes must be at least 1, got {part_bytes}")
    joined, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        while data := file.read(part_bytes):
            name = f"{path.name}.part-{len(parts):03d}"
            write_whole(folder / name, data)
            joined.update(data)
            digest = hashlib.sha256(data).hexdigest()
            parts.append({"name": name, "bytes": len(data), "sha256": digest})
    manifest = folder / f"{path.name}.json"
    content = {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": joined.hexdigest(),
        "join": f"python -m examples.parts join {manifest.name} FOLDER",
        "parts": parts,
    }
    write_whole(manifest, json.dumps(content, indent=1).encode() + b"\n")
    for old in folder.glob(f"{path.name}.part-*"):
        if old.name not in {part["name"] for part in parts}:
            old.unlink()
    return manifest


def join(manifest: Path, folder: Path) -> Path:
    """Write the file that a manifest tells of into a folder and return its path.

    Raises:
        FileNotFoundError: There is no such manifest.
        PartsError: A part is missing or differs, or the manifest is none; nothing was written.
    """
    try:
        content = json.loads(manifest.read_bytes())
        name, digest = Path(content["name"]).name, content["sha256"]
        parts = [(Path(part["name"]).name, part["sha256"]) for part in content["parts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PartsError(f"{manifest} is no manifest of parts") from error
    path, joined = folder / name, hashlib.sha256()
    with whole(path) as place, place.open("wb") as file:
        for part, part_digest in parts:
            data = _read_part(manifest.parent / part, part_digest)
            joined.update(data)
            file.write(data)
        if joined.hexdigest() != digest:
            raise PartsError(f"{name}: its parts are right one by one, but not together")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 fine, 1 the parts are not right."""
    parser = argparse.ArgumentParser(
        description="Join parts, check them, and unpack what is an archive."
    )
    parser.add_argument("verb", choices=("join",))
    parser.add_argument("manifest", type=Path, help="the .json file beside the parts")
    parser.add_argument("folder", type=Path, help="where to")
    arguments = parser.parse_args(argv)
    try:
        path = join(arguments.manifest, arguments.folder)
    except (FileNotFoundError, PartsError) as error:
        print(error, file=sys.stderr)
        return 1
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            # Python has filters since 3.11.4; a user's may be older.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            tar.extractall(arguments.folder)  # noqa: S202 - its SHA-256 is as told
        path.unlink()
    print(f"{arguments.folder}: all there, SHA-256 as told")
    return 0


def _read_part(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PartsError(f"{path.name} is missing") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise PartsError(f"{path.name} differs from what was split")
    return data


if __name__ == "__main__":
    sys.exit(main())
