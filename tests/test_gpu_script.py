"""The GPU script: what its pieces run, and what comes out; parts of large files."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples import gpu, parts
from examples.gpu_pieces import SECTIONS, GpuConfig, all_pieces, told_by_tests, train_overrides
from midas_world.commands import cli
from midas_world.commands.overrides import find_overrides
from midas_world.config import load_preset, save_config


def config_of(tmp_path: Path, **more) -> GpuConfig:
    return GpuConfig(output=tmp_path / "out", work=tmp_path / "work", **{"preset": "tiny", **more})


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, examples.gpu; "
        "heavy = {'torch', 'numpy', 'omegaconf', 'gymnasium', 'midas_world', 'pytest'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=gpu.ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_pieces_name_what_there_is(tmp_path):
    from engine.bench import command as bench
    from engine.build_command import _parser as build_parser
    from midas_world.evaluate import command as evaluate

    assert sorted(SECTIONS) == sorted(evaluate.SECTIONS)
    pieces = all_pieces(config_of(tmp_path, scale=2.0, init_from=Path("start")))
    names = [each.name for each in pieces]
    assert len(set(names)) == len(names)
    assert [*dict.fromkeys(each.group for each in pieces)] == list(gpu.GROUPS)
    parsers = {
        "bench": bench._parser(),
        "build": build_parser(),
        "eval": evaluate._parser(),
    }
    seen = set()
    for each in pieces:
        assert set(each.needs) <= set(names[: names.index(each.name)])
        words = list(each.command())
        if words[1] == "pytest":
            continue
        assert words[:2] == ["-m", "midas_world.commands.cli"]
        verb, overrides = words[2], find_overrides(words[2:])
        given = [word for word in words[2:] if word not in overrides]
        # Whatever is not known there ends the test.
        if verb in parsers:
            parsers[verb].parse_args(given[1:])
        else:
            cli._parser().parse_args(given)
            load_preset("tiny", overrides)
        seen.add(verb)
    assert seen == {"bench", "build", "collect", "train", "pack", "eval"}


def test_every_plan_is_built_by_both_flavours(tmp_path):
    plans = {path.stem for path in (gpu.ROOT / "trt_plans").glob("*.yaml")}
    names = {each.name for each in all_pieces(config_of(tmp_path)) if each.group == "plans"}
    assert names == {
        f"plans/{flav}-{plan}" for flav in ("tensorrt", "tensorrt-rtx") for plan in plans
    }


def test_the_scale_multiplies_the_preset_and_overrides_stand_above_it(tmp_path):
    overrides = ("train_dynamics.optimizer.train_steps=5",)
    preset = str(tmp_path / "freezes.yaml")
    save_config(load_preset("stage", ["train_autoencoder.freeze_encoder_after=40"]), Path(preset))
    config = config_of(tmp_path, preset=preset, scale=2.5, save_every=7, overrides=overrides)
    plain, scaled = load_preset(preset), load_preset(preset, train_overrides(config))
    assert scaled.data.num_episodes == round(2.5 * plain.data.num_episodes)
    coder, plain_coder = scaled.train_autoencoder, plain.train_autoencoder
    assert coder.optimizer.train_steps == round(2.5 * plain_coder.optimizer.train_steps)
    assert coder.freeze_encoder_after == 100
    assert scaled.train_dynamics.optimizer.train_steps == 5
    assert coder.save_every == scaled.train_dynamics.save_every == 7
    assert scaled.data.num_validation_episodes == plain.data.num_validation_episodes
    # An encoder that never freezes stays so.
    tiny = load_preset("tiny", train_overrides(config_of(tmp_path, scale=2.0)))
    assert tiny.train_autoencoder.freeze_encoder_after == -1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scale": 0.0}, "scale must be positive, got 0"),
        ({"workers": 0}, "workers must be at least"),
    ],
)
def test_numbers_outside_their_limits_are_refused(tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        config_of(tmp_path, **more)


def test_tests_that_were_all_skipped_are_no_success(tmp_path):
    report = tmp_path / "tests.xml"
    form = '<testsuites><testsuite tests="{}" skipped="{}" failures="0" errors="0"/></testsuites>'
    report.write_text(form.format(12, 2))
    assert told_by_tests(report) == "10 tests passed, 2 skipped"
    report.write_text(form.format(5, 5))
    with pytest.raises(ValueError, match="no test ran: 5 were skipped"):
        told_by_tests(report)


# The command


def run_main(tmp_path: Path, *words: str, run=None) -> tuple[int, list[str]]:
    told: list[str] = []
    code = gpu.main(
        ["--output", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *words],
        run=run,
        tell=told.append,
    )
    return code, told


class Project:
    """Runs that leave what the real ones leave, as far as the script looks at it."""

    def __init__(self, work: Path, *, failing: str = "") -> None:
        self.work, self.failing = work, failing
        self.verbs: list[str] = []

    def __call__(self, words: Sequence[str], log: Path, limit_s: float) -> int | None:
        verb = "pytest" if "pytest" in words else words[2]
        self.verbs.append(verb)
        log.write_text(f"{verb} says\n")
        if verb == self.failing:
            return 1
        if verb == "train":
            folder = self.work / "runs" / words[3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "weights.safetensors").write_bytes(bytes(1000))
            (folder / "log.csv").write_text("train_step,name,value\n")
        if verb == "pack":
            world = self.work / "world"
            world.mkdir()
            (world / "weights.safetensors").write_bytes(b"trained")
        if verb == "eval":
            folder = self.work / "results" / "evaluation"
            folder.mkdir(exist_ok=True)
            (folder / "evaluation.md").write_text("# Evaluation of tiny\n")
        return 0


def test_a_call_brings_out_all_there_is(tmp_path):
    project = Project(tmp_path / "work")
    code, told = run_main(tmp_path, "--only", "train", "--preset", "tiny", run=project)
    assert code == 0
    assert project.verbs == ["collect", "train", "train", "pack", *["eval"] * len(SECTIONS)]
    assert told[-1] == "18 of 18 pieces done; failed: none"
    out = tmp_path / "out"
    names = ["results.tar.json", "results.tar.part-000", "state.json", "summary.md"]
    assert sorted(path.name for path in out.iterdir()) == names
    summary = (out / "summary.md").read_text()
    assert "| train/dynamics | done |" in summary
    assert "# Evaluation of tiny" in summary
    assert "python -m examples.parts join results.tar.json FOLDER" in summary
    assert parts.main(["join", str(out / "results.tar.json"), str(tmp_path / "joined")]) == 0
    joined = tmp_path / "joined"
    assert (joined / "world" / "weights.safetensors").read_bytes() == b"trained"
    assert (joined / "training" / "dynamics" / "log.csv").is_file()
    assert not (joined / "training" / "dynamics" / "weights.safetensors").exists()
    assert "collect says" in (joined / "logs" / "train-collect.log").read_text()


def test_groups_are_done_in_the_order_asked_for_and_failures_are_told(tmp_path):
    project = Project(tmp_path / "work", failing="pack")
    code, told = run_main(tmp_path, "--only", "train,bench", "--preset", "tiny", run=project)
    assert code == 1
    assert project.verbs == ["collect", "train", "train", "pack", *["bench"] * 5]
    assert told[-1] == "8 of 23 pieces done; failed: train/pack"
    # Weights of training that did not come to its end are there too.
    assert parts.main(["join", str(tmp_path / "out/results.tar.json"), str(tmp_path / "in")]) == 0
    assert (tmp_path / "in/training/dynamics/weights.safetensors").stat().st_size == 1000
    project.failing = ""
    assert run_main(tmp_path, "--only", "train", "--preset", "tiny", run=project)[0] == 1
    words = ("--only", "train", "--preset", "tiny", "--retry")
    assert run_main(tmp_path, *words, run=project)[0] == 0


def test_a_call_without_time_asks_for_another(tmp_path):
    project = Project(tmp_path / "work")
    code, _ = run_main(tmp_path, "--minutes", "0", run=project)
    assert code == 3
    assert project.verbs == []
    assert (tmp_path / "out" / "summary.md").is_file()
    code, listed = run_main(tmp_path, "--list", "--only", "bench")
    assert code == 0
    assert listed[0].split()[:2] == ["bench/stage-torch", "open"]
    assert len(listed) == 5


def test_an_unknown_group_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_main(tmp_path, "--only", "train,benhc")
    assert "unknown groups benhc; there are tests, plans, bench, train" in capsys.readouterr().err


# Parts


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 30])
def test_parts_make_the_file_again(tmp_path, size):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(size)))
    manifest = parts.split(path, tmp_path / "out", part_bytes=10)
    made = sorted((tmp_path / "out").glob("weights.bin.part-*"))
    assert len(made) == -(-size // 10)
    assert all(part.stat().st_size <= 10 for part in made)
    assert parts.join(manifest, tmp_path / "in").read_bytes() == path.read_bytes()


def test_older_parts_do_not_stay(tmp_path):
    path = tmp_path / "file"
    for size in (35, 12):
        path.write_bytes(bytes(size))
        parts.split(path, tmp_path / "out", part_bytes=10)
    names = sorted(part.name for part in (tmp_path / "out").iterdir())
    assert names == ["file.json", "file.part-000", "file.part-001"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda out: (out / "file.part-001").write_bytes(b"other"), "part-001 differs"),
        (lambda out: (out / "file.part-000").unlink(), "part-000 is missing"),
        (lambda out: (out / "file.json").write_text("{}"), "is no manifest of parts"),
        (lambda out: swap_parts(out / "file.json"), "not together"),
    ],
)
def test_damaged_parts_are_told_and_nothing_is_written(tmp_path, capsys, damage, words):
    path, out, to = tmp_path / "file", tmp_path / "out", tmp_path / "in"
    path.write_bytes(bytes(range(25)))
    manifest = parts.split(path, out, part_bytes=10)
    damage(out)
    assert parts.main(["join", str(manifest), str(to)]) == 1
    assert words in capsys.readouterr().err
    assert not to.exists() or not list(to.iterdir())


def swap_parts(manifest: Path) -> None:
    content = json.loads(manifest.read_text())
    content["parts"].reverse()
    manifest.write_text(json.dumps(content))


def test_equal_files_make_equal_archives(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"words")
    archives = [tmp_path / f"{name}.tar" for name in ("one", "two")]
    for archive in archives:
        file.touch()
        parts.pack({"deep/b": file, "a": file}, archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
