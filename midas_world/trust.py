"""Whose code may run: what others made - a world, a session, a preset - may name modules.

To import a module is to run what stands in it. So nothing that a file names is imported unless the
caller says so (`trust`, or --trust on the command line), and nothing that lies inside the opened
folder is, whoever says so. What the command line itself names is the user's own word.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from midas_world.config import DataConfig
from midas_world.packages import check_packages
from midas_world.types import MidasWorldError

# Of our own, so a file may name them.
_OWN_ENVS = "envs"
_OWN_POLICY = re.compile(r"envs(\.\w+)+:make_policy")
# Words that an env may be made with: neither a path nor the name of a module.
_PLAIN_WORD = re.compile(r"(\w[\w .+-]*)?")

HOW_TO_FIND = (
    "your own modules must lie where Python looks: `python -m midas_world.commands.cli` adds the "
    "present folder; or set PYTHONPATH, or `pip install -e` them"
)


class UntrustedError(MidasWorldError, ValueError):
    """A file names code that may not run; the message says which."""


def import_named(module: str, *, source: Path, field: str, trust: bool) -> ModuleType:
    """Return a module that a file names.

    Args:
        module: Its dotted name.
        source: The folder that was opened, or the file.
        field: Where the file names it, for the error.
        trust: Whether the caller trusts whoever made it.

    Raises:
        UntrustedError: The caller does not, or the module lies inside the folder.
        ImportError: There is no such module.
    """
    if not trust:
        raise UntrustedError(
            f"{source} names the module {module!r} ({field}), whose code would run: only with "
            "--trust (in Python: trust=True), if you trust whoever made it"
        )
    folder = source.resolve()
    found = None
    # Parents come first: to look for a module imports them.
    names = module.split(".")
    for last in range(1, len(names) + 1):
        name = ".".join(names[:last])
        for place in _places(name):
            if folder.is_dir() and Path(place).resolve().is_relative_to(folder):
                raise UntrustedError(
                    f"{source} names the module {module!r} ({field}), which lies in that folder "
                    "itself and is never imported from there: look at it, and install it elsewhere"
                )
        found = importlib.import_module(name)
    assert found is not None, "there is at least one name"
    return found


def import_function(
    name: str, *, field: str, source: Path | None = None, trust: bool = True
) -> Callable[..., Any]:
    """Return the function that "module:function" names.

    Args:
        name: Its name.
        field: Where it was named, for the error.
        source: The folder or file that names it; None: the caller's own word.
        trust: Whether the caller trusts whoever made the source.

    Raises:
        UntrustedError: As in `import_named`.
        ValueError: There is no such function.
    """
    module, _, function = name.partition(":")
    try:
        if source is None:
            return getattr(importlib.import_module(module), function)
        named = import_named(module, source=source, field=field, trust=trust)
        return getattr(named, function)
    except UntrustedError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        advice = f"; {HOW_TO_FIND}" if isinstance(error, ModuleNotFoundError) else ""
        message = f'{field} must be "module:function", got {name!r}: {error}{advice}'
        raise ValueError(message) from error


def check_env(
    env_id: str, kwargs: Mapping[str, Any], *, source: Path, field: str, trust: bool
) -> None:
    """Check that an environment may be made as a file says, and import the module that it names.

    Without trust it is one of this project or one that is registered already, made with numbers and
    plain words.

    Raises:
        UntrustedError: The caller does not trust the file, or a module lies inside its folder.
        ValueError: There is no such module.
    """
    module, _, _ = env_id.rpartition(":")
    if module == _OWN_ENVS:
        check_packages(module)
        importlib.import_module(module)
    elif module:
        try:
            import_named(module, source=source, field=field, trust=trust)
        except (ImportError, ValueError) as error:
            if isinstance(error, UntrustedError):
                raise
            raise ValueError(f"{env_id} cannot be made here: {error}; {HOW_TO_FIND}") from error
    if not trust:
        for name, value in kwargs.items():
            if name == "trust" or not all(_PLAIN_WORD.fullmatch(word) for word in _words(value)):
                raise UntrustedError(
                    f"{source} gives the env {env_id} {name}={value!r} ({field}), which is no "
                    "plain word or number: only with --trust (in Python: trust=True)"
                )


def check_data(data: DataConfig, *, source: Path, trust: bool) -> None:
    """Check that the teacher and the policies that a file names may run, and import them.

    Raises:
        UntrustedError: As in `import_named`.
        ValueError: There is no such module.
    """
    check_env(data.env_id, data.env_kwargs, source=source, field="data.env_id", trust=trust)
    name = data.policy_factory
    if name and not _OWN_POLICY.fullmatch(name):
        import_function(name, field="data.policy_factory", source=source, trust=trust)


def _places(name: str) -> Iterator[str]:
    """Yield the files and folders of a module, imported or to be imported."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    if spec.origin is not None:
        yield spec.origin
    yield from spec.submodule_search_locations or ()


def _words(value: Any) -> Iterator[str]:
    """Yield every text in a value that JSON or YAML can hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
