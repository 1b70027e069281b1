"""The documents tell what is there: functions, files, links, commands, and the shipped numbers."""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from envs.play.game.inputs import Inputs
from envs.play.window.hud import key_rows
from midas_world import __version__
from midas_world.commands.cli import VERBS
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, read_sound
from midas_world.data.video import import_av
from midas_world.evaluate.report import read_report, to_markdown
from midas_world.tables import table_lines

ROOT = Path(__file__).parents[1]
CARDS = "midas_world/worlds/*/README.md"
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(CARDS)])
NAMES = [doc.relative_to(ROOT).as_posix() for doc in DOCS]
TOP = "midas_world|engine|envs|examples|tests|trt_plans|docs"
DEMO, MOST_DEMO_BYTES = "docs/demo.gif", 1_500_000
# Of weights, and of start states.
MOST_WORLD_BYTES = {"weights": 40_000_000, "start_states": 15_000_000}
REMOVED = re.compile(r"^### Removed$.*?(?=^##)", re.DOTALL | re.MULTILINE)
# Of git, ruff, torchrun and the tests' own programs.
OPTIONS_OF_OTHERS = {"--depth", "--check", "--nproc-per-node", "--inputs", "--version", "--help"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose_of(name: str) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(name), flags=re.DOTALL | re.MULTILINE)


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse(text_of(path))


@cache
def find(reference: str) -> Definition | None:
    """Return what "path:Class.method" or "path:function.inner" names; None if it is not there."""
    path, _, name = reference.partition(":")
    found, inside = None, tree_of(path).body
    for part in name.split("."):
        named = [node for node in inside if isinstance(node, Definition) and node.name == part]
        if not named:
            return None
        found = named[0]
        inside = found.body
    return found


@cache
def words_of(node: ast.AST) -> set[str]:
    """Return every name and attribute that is used in a piece of code."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    return names | {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)}


def is_used_by(hop: str, earlier: str) -> bool:
    """Return whether an earlier hop names this one; what has no name of its own, by its class."""
    *classes, name = hop.split(":")[1].split(".")
    if name in ("__init__", "forward"):
        return classes[-1] in words_of(tree_of(earlier.split(":")[0]))
    code = find(earlier)
    return code is not None and name in words_of(code)


def ways() -> list[list[str]]:
    """Return the numbered lists of ARCHITECTURE.md; a list begins at 1."""
    found: list[list[str]] = []
    for number, hop in re.findall(r"^(\d+)\. `([^`]+:[^`]+)`", text_of("ARCHITECTURE.md"), re.M):
        if number == "1":
            found.append([])
        found[-1].append(hop)
        assert int(number) == len(found[-1]), f"{number} {hop}"
    return found


def test_every_function_that_architecture_names_exists():
    named = re.findall(r"`([\w/]+\.py:[\w.]+)`", text_of("ARCHITECTURE.md"))
    assert len(named) > 100
    assert [reference for reference in named if find(reference) is None] == []
    assert find("play.py:no_such_function") is None
    assert find("envs/world/env.py:WorldEnv.no_such_method") is None


def test_every_name_that_architecture_puts_beside_a_file_is_in_it():
    text = text_of("ARCHITECTURE.md")
    named = [
        (path, name)
        for path, names in re.findall(r"`([\w/]+\.py)` \(([^)]*)\)", text)
        for name in re.findall(r"`(\w+)`", names)
    ]
    named += [(b, a) for a, b in re.findall(r"`(\w+)` (?:of|in) `([\w/]+\.py)`", text)]
    assert len(named) > 8
    assert [pair for pair in named if not re.search(rf"\b{pair[1]}\b", text_of(pair[0]))] == []


def test_every_hop_is_used_by_one_before_it():
    """A hop that is lost has lost its caller: put what is now between them into its list."""
    assert len(ways()) == 6
    lost = [
        hop
        for way in ways()
        for place, hop in enumerate(way)
        if place and not any(is_used_by(hop, earlier) for earlier in way[:place])
    ]
    assert lost == []
    assert not is_used_by("midas_world/train/loop.py:Trainer.run", "play.py:_resimulate")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_document_names_exists(name):
    words = re.findall(rf"(?<![\w/.-])((?:{TOP})/[\w./*-]*[\w*])", text_of(name))
    missing = {word for word in words if not list(ROOT.glob(word))}
    assert missing == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_document_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(name)):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def anchors_of(file: Path) -> set[str]:
    """Return what headings are called in links."""
    prose = prose_of(file.resolve().relative_to(ROOT).as_posix())
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_document_exists(name):
    text = text_of(name)
    assert set(re.findall(r"(?:^|[`\"])midas-world ([a-z]+)\b", text, re.M)) <= set(VERBS)
    for module in re.findall(r"python -m ((?:midas_world|engine|envs|examples|tests)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_readme_is_a_front_page_that_leads_to_every_other():
    text = text_of("README.md")
    assert len(text.splitlines()) <= 200
    assert [name for name in NAMES if name != "README.md" and f"({name})" not in text] == []


def test_every_room_is_in_architecture():
    rooms = text_of("ARCHITECTURE.md").partition("## Rooms")[2].partition("\n## ")[0]
    files = [
        file for top in ("midas_world", "engine", "envs") for file in ROOT.glob(f"{top}/**/*.py")
    ]
    named = {f"{file.parent.name}/" for file in files}
    named |= {file.relative_to(ROOT).as_posix() for file in files if file.parents[1] == ROOT}
    assert {name for name in named if name not in rooms and "__init__" not in name} == set()


def test_every_verb_is_in_the_page_on_commands():
    told = re.findall(r"^\| `([a-z]+)` \|", text_of("docs/commands.md"), re.M)
    assert told == list(VERBS)


def test_readme_shows_the_shipped_world_s_own_numbers():
    """Paste the lines of this message where a new world has other numbers."""
    report = read_report(ROOT / "midas_world/worlds/stage")
    rows = [line.split(" | ")[:3] for line in to_markdown(report).splitlines() if " | " in line]
    told = {row[0]: f"{' | '.join(row)} |" for row in rows}
    block = re.search(r"<!-- numbers -->\n(.*?)<!-- /numbers -->", text_of("README.md"), re.DOTALL)
    shown = [line for line in block[1].splitlines() if line.startswith("|")][2:]
    assert len(shown) > 10
    expected = [told.get(line.split(" | ")[0], "no such number") for line in shown]
    assert shown == expected, "\n".join(expected)


def test_the_card_shows_the_voice_language_by_language():
    """Paste the lines of this message where a new world has other numbers."""
    report = read_report(ROOT / "midas_world/worlds/stage")
    (table,) = report["sections"]["voice"]["tables"]
    lines = "\n".join(table_lines(table["columns"], table["rows"], digits=table["digits"]))
    assert lines in text_of("midas_world/worlds/stage/README.md"), lines


def test_the_site_builds_and_every_link_in_it_leads_somewhere(tmp_path):
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    pages = {file.parent.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("index.html")}
    assert pages >= {Path(name).stem for name in NAMES if name.startswith("docs/")} | {"model-card"}
    reference = (tmp_path / "reference/index.html").read_text(encoding="utf-8")
    for words in ("termination_probability", "keypoints in the frame", "make_sb3_vec_env"):
        assert words in reference
    assert "googleapis" not in reference


# What a block says that needs a package which not everybody has.
OPTIONAL = {"torchrl": "torchrl", "DataCollector": "jax", "stable_baselines3": "stable_baselines3"}
BLOCKS = {
    f"{name}:{text_of(name)[: found.start()].count(chr(10)) + 1}": found[1]
    for name in ("README.md", "docs/environment.md", "docs/recipes.md")
    for found in re.finditer(r"^```python\n(.*?)^```", text_of(name), re.DOTALL | re.MULTILINE)
}


# Minari's collector leaves its folder to be cleaned up.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
@pytest.mark.parametrize("place", BLOCKS)
def test_the_python_of_a_document_runs(place, tiny_folder, tmp_path, monkeypatch):
    for word, package in OPTIONAL.items():
        if word in BLOCKS[place]:
            pytest.importorskip(package)
    shutil.copytree(tiny_folder, tmp_path / "stage")
    monkeypatch.chdir(tmp_path)  # where a world's name is looked for first
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    exec(compile(BLOCKS[place], place, "exec"), {})


def test_sections_of_readme_that_ci_runs_are_there():
    text = text_of("README.md")
    for name, command in (("play", "python play.py"), ("test", "pytest")):
        block = re.search(rf"```bash\n([^`]*)```\n<!-- ci:{name} -->\n", text)
        assert block is not None, name
        assert command in block[1]


def test_no_large_file_is_tracked_but_weights_start_states_and_a_demo():
    sizes = tracked_sizes()
    most, allowed = large_files()
    large = {name: size for name, size in sizes.items() if size > most}
    assert {name for name in large if not allowed.search(name)} == set()
    assert sizes[DEMO] <= MOST_DEMO_BYTES
    for name in large.keys() - {DEMO}:
        assert large[name] <= MOST_WORLD_BYTES[Path(name).stem], name


def tracked_sizes() -> dict[str, int]:
    """Return the bytes of every file that git knows; skips the test where there is no git."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    words = [git, "ls-files", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("git knows nothing of this folder")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return {name: (ROOT / name).stat().st_size for name in names if (ROOT / name).is_file()}


def large_files() -> tuple[int, re.Pattern[str]]:
    """Return the most bytes of a file, and which ones may have more, as pre-commit is told."""
    config = yaml.safe_load(text_of(".pre-commit-config.yaml"))
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert hooks.keys() >= {"ruff", "ruff-format", "check-yaml", "check-toml"}
    (argument,) = hooks["check-added-large-files"]["args"]
    size = int(argument.removeprefix("--maxkb=")) * 1024
    return size, re.compile(hooks["check-added-large-files"]["exclude"])


def test_a_large_file_is_allowed_by_name_alone():
    most, allowed = large_files()
    assert most == 500 * 1024
    assert allowed.search("midas_world/worlds/mine/weights.safetensors")
    for name in ("midas_world/worlds/mine/more.safetensors", "docs/demo.gif.bak", "weights.bin"):
        assert not allowed.search(name)


def test_the_demo_with_sound_lasts_twenty_seconds_and_is_heard():
    path = ROOT / "docs/voice.mp4"
    with import_av().open(str(path)) as film:
        (stream,) = film.streams.video
        assert stream.frames == 401
        assert (stream.height, stream.width, stream.average_rate) == (192, 320, 20)
    sound = np.concatenate(list(read_sound(path)))
    assert sound.size / SAMPLE_RATE_HZ == pytest.approx(20.05, abs=0.2)
    loud = np.abs(sound[: 400 * SAMPLES_PER_STEP].reshape(400, -1)).max(axis=1) > 1000
    assert 0.4 < loud.mean() < 0.95
    assert "(docs/voice.mp4)" in text_of("README.md")


def test_the_version_is_one():
    assert f"version: {__version__}\n" in text_of("CITATION.cff")
    assert f'version = "{__version__}"\n' in text_of("pyproject.toml")
    assert __version__ in text_of("CHANGELOG.md")


def test_the_page_on_play_tells_every_command_of_the_window():
    rows = [f"| {' | '.join(row)} |" for row in key_rows({}, Inputs())]
    assert "\n".join(rows) in text_of("docs/play.md"), "\n".join(rows)


@cache
def options() -> set[str]:
    """Return the long options that the project's own programs take."""
    files = [ROOT / "play.py"]
    for package in ("midas_world", "engine", "envs", "examples"):
        files += (ROOT / package).rglob("*.py")
    found = (re.findall(r'"(--[a-z][a-z-]*)"', file.read_text(encoding="utf-8")) for file in files)
    return {option for options in found for option in options}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_document_exists(name):
    there, gone = (
        set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", text))
        for text in (REMOVED.sub("", text_of(name)), "".join(REMOVED.findall(text_of(name))))
    )
    assert there - options() - OPTIONS_OF_OTHERS == set()
    assert gone & options() == set()
