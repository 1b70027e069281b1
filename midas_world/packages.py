"""Whether Python finds our `envs` and `engine` under these names, which other projects use too."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_packages(*names: str) -> None:
    """Check that packages of midas-world are not hidden by others of the same name.

    Raises:
        ImportError: Another package comes first, or there is none; the message names what was
            found and what to do.
    """
    for name in names:
        found = _find(name)
        if found is None:
            raise ImportError(f"midas-world is not installed whole: there is no {ROOT / name}")
        if found != ROOT / name:
            raise ImportError(
                f"the package {name!r} that Python finds, {found}, is not midas-world's, which is "
                f"{ROOT / name}. Rename the other one, leave the folder that it lies in, or put "
                f"midas-world's first: PYTHONPATH={ROOT}"
            )


def _find(name: str) -> Path | None:
    """Return the file or folder of a package, imported or to be imported; None if there is none."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    if spec is None:
        return Path(getattr(module, "__file__", None) or "<no file>") if module else None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin or "<no file>").resolve()
