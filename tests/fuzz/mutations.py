"""Seeded changes of files: bits and pieces of any, values of those that are text."""

import json
import re
import zlib
from pathlib import Path

import numpy as np

_TOKEN = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?|true|false|null|\"[^\"\n]*\"|[A-Za-z_]\w*")
_VALUES = (
    b"0", b"-1", b"1e400", b"NaN", b"9" * 400, b"1000000000", b"0.5", b"null", b"true", b"[]",
    b"{}", b'""', b'"x"', b"[[[[1]]]]", b'{"a": 1}', b"../../etc/passwd", b"/etc/passwd",
    b"${oc.env:HOME}", b"os:system", b"!!python/object:os.system", b"*a", b"&a", b" " * 5000,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data with a few bits flipped, bytes replaced, or a piece cut, doubled or moved."""
    changed = bytearray(data or b"\0")
    for _ in range(int(rng.integers(1, 4))):
        size = max(1, len(changed))
        place, length = int(rng.integers(size)), int(rng.integers(1, 65))
        kind = int(rng.integers(5))
        if kind == 0 and changed:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length]
        else:
            del changed[place:]
    return bytes(changed)


def mutate_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Return text with a few of its values replaced by others, or by one from elsewhere in it."""
    for _ in range(int(rng.integers(1, 4))):
        found = list(_TOKEN.finditer(data))
        if not found:
            return mutate_bytes(data, rng)
        old = found[int(rng.integers(len(found)))]
        other = found[int(rng.integers(len(found)))][0]
        new = other if rng.random() < 0.3 else _VALUES[int(rng.integers(len(_VALUES)))]
        data = data[: old.start()] + new + data[old.end() :]
    return data if rng.random() < 0.8 else mutate_bytes(data, rng)


def mutate_log(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a session's log with one line changed, under a right checksum."""
    lines = data.splitlines()
    place = int(rng.integers(len(lines)))
    words = mutate_text(lines[place].partition(b" ")[2], rng).replace(b"\n", b" ")
    lines[place] = b"%08x %s" % (zlib.crc32(words), words)
    return b"\n".join(lines) + b"\n"


def mutate_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a safetensors file without our checksum, with its header or its values changed."""
    size = int.from_bytes(data[:8], "little")
    header, values = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.get("__metadata__", {}).pop("crc32", None)
    names = [name for name in header if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    kind = int(rng.integers(5))
    if kind == 0:
        del header[name]
    elif kind == 1:
        header[name]["dtype"] = ("F32", "I32", "F16", "I8", "BF16", "F64")[int(rng.integers(6))]
    elif kind == 2:
        header[name]["shape"] = header[name]["shape"][::-1]
    elif kind == 3:
        start, stop = header[name]["data_offsets"]
        changed = np.frombuffer(values, np.uint8).copy()
        changed[start:stop] = 255
        values = changed.tobytes()
    else:
        header[name + ":scale"] = header.pop(name)
    words = json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + values


def mutate_file(path: Path, rng: np.random.Generator) -> None:
    """Change a file as its kind allows."""
    data = path.read_bytes()
    if path.name == "steps.log" and rng.random() < 0.8:
        data = mutate_log(data, rng)
    elif path.suffix == ".safetensors" and rng.random() < 0.5:
        data = mutate_tensors(data, rng)
    elif path.suffix in (".json", ".yaml", ".txt") and rng.random() < 0.8:
        data = mutate_text(data, rng)
    else:
        data = mutate_bytes(data, rng)
    path.write_bytes(data)
