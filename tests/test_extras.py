"""What an extra brings is missed in one line, which names the extra."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

import midas_world.environments
from midas_world.commands import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: {re.match(r"[\w-]+", wish)[0] for wish in wishes}
    for name, wishes in PROJECT["optional-dependencies"].items()
}
MODULES = ("Xlib", "espeakng_loader", "h5py", "minari", "pandas", "pyarrow", "pynput",
           "sounddevice", "stable_baselines3", "tensorrt", "tensorrt_rtx", "vizdoom",
           "webrtcvad")  # fmt: skip
EXAMPLES = sorted(
    file.stem for file in (ROOT / "examples").glob("*.py") if "__main__" in file.read_text()
)


@pytest.fixture
def bare(monkeypatch):
    """Let nothing be installed but what the plain package brings."""
    for name in list(sys.modules):
        if name.startswith(("examples.", "envs.sb3", *MODULES)):
            monkeypatch.delitem(sys.modules, name)
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def asked_for():
    """Yield the file, the extra and the modules of each `with needs(...)`."""
    block = re.compile(r'^( *)with needs\(.*extra="(\w+)".*:\n((?:\1 +.*\n|\n)+)', re.MULTILINE)
    for room in ("midas_world", "engine", "envs", "examples"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for _, extra, body in block.findall(file.read_text(encoding="utf-8")):
                yield file, extra, re.findall(r"^ *(?:from|import) (\w+)", body, re.MULTILINE)


def test_what_is_asked_for_is_what_the_extra_brings():
    found = list(asked_for())
    assert len(found) >= 8
    for file, extra, modules in found:
        for module in set(modules) - {"examples", "envs"}:  # our own
            name = {"webrtcvad": "webrtcvad-wheels"}.get(module, module.replace("_", "-"))
            assert name in EXTRAS[extra], f"{file.name}: {extra} does not bring {name}"


def test_an_extra_that_is_there_and_cannot_be_loaded_says_why(tmp_path, monkeypatch, capsys):
    """pyarrow 26 says this with NumPy 1.26."""
    why = "pyarrow requires NumPy 2.0 or newer, found 1.26.4"
    (tmp_path / "pyarrow.py").write_text(f"raise ImportError({why!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pandas", "pyarrow")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "data" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "meta" / "info.json").write_text("{}")
    assert cli.main(["import", str(tmp_path / "data"), "--to", str(tmp_path / "made")]) == 2
    assert capsys.readouterr().err == f"midas-world import: {why}\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_its_options_or_tells_what_it_needs(name, bare, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"examples.{name}", run_name="__main__")
    if ended.value.code == 0:
        assert "usage: " in capsys.readouterr().out
    else:
        line = rf"{name} needs \w+: pip install 'midas-world\[rl\]'"
        assert re.fullmatch(line, str(ended.value.code))


def test_games_for_stable_baselines_tell_what_they_need(bare):
    words = r"needs stable_baselines3: pip install 'midas-world\[rl\]'"
    with pytest.raises(ImportError, match=words):
        midas_world.environments.make_sb3_vec_env("midas/Stage-v0")
