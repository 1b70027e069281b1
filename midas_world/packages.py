"""What can be imported: our `envs` and `engine`, named as others' are, and what extras bring."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_packages(*names: str) -> None:
    """Check that packages of midas-world are not hidden by others of the same name.

    Raises:
        ImportError: Another package comes first, or there is none; the message names what was
            found and what to do.
    """
    for name in names:
        places = _places(name)
        if not places:
            raise ImportError(f"midas-world is not installed whole: there is no {ROOT / name}")
        if ROOT / name not in places:
            raise _hidden(name, places[0])


def join_packages(*names: str) -> None:
    """Let the modules of our packages be found beside those of another project's of the same name.

    Imports the other package, which comes first in its own project.

    Raises:
        ImportError: The two have modules of the same name, or the other one is no package.
    """
    for name in names:
        places = _places(name)
        if not places or ROOT / name in places:
            check_packages(name)
            continue
        path = getattr(importlib.import_module(name), "__path__", None)
        if path is None:
            raise _hidden(name, places[0])
        if both := sorted(_modules(ROOT / name) & set().union(*map(_modules, places))):
            raise _hidden(name, places[0], f": both have {', '.join(both)}")
        path.append(str(ROOT / name))


@contextlib.contextmanager
def needs(
    what: str, *, extra: str, error: Callable[[str], BaseException] = ImportError
) -> Iterator[None]:
    """Let an import that finds no package tell which extra brings it.

    Args:
        what: Needs it, in words for the user.
        extra: Of this package.
        error: What is raised; SystemExit ends a script in that line.
    """
    try:
        yield
    except ModuleNotFoundError as reason:
        package, _, _ = (reason.name or "").partition(".")
        raise error(f"{what} needs {package}: pip install 'midas-world[{extra}]'") from reason


def _hidden(name: str, found: Path, why: str = "") -> ImportError:
    return ImportError(
        f"the package {name!r} that Python finds, {found}, is not midas-world's, which is "
        f"{ROOT / name}{why}. Rename the other one, leave the folder that it lies in, or put "
        f"midas-world's first: PYTHONPATH={ROOT}"
    )


def _modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("[!_.]*") if path.is_dir() or path.suffix == ".py"}


def _places(name: str) -> list[Path]:
    """Return the file or the folders of a package, imported or to be imported; none if none is."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    places = getattr(module, "__path__", None) or (spec and spec.submodule_search_locations)
    if not places:
        places = [file] if (file := getattr(spec or module, "origin", None)) else []
    return [Path(place).resolve() for place in places]
