"""What Stage understands of a player's words, over a list of phrasings that has all the kinds."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from envs.stage.scene import Scene
from envs.stage.words import understand, vocabulary
from envs.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
FIELDS = ("place", "time_of_day", "weather", "outfit", "activity")


def phrasings() -> list[dict[str, str]]:
    with (ROOT / "tests/phrasings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_right(row: dict[str, str]) -> bool:
    heard = vocabulary().understand(row["phrase"])
    wanted = {field: row[field] for field in FIELDS if row[field]}
    unknown = " ".join(said for said, _ in heard.unknown)
    return dict(heard.names) == wanted and row["unknown"] in unknown


def test_phrasings_are_understood_and_the_docs_tell_how_many():
    rows = phrasings()
    right = [is_right(row) for row in rows]
    wrong = [row["phrase"] for row, is_it in zip(rows, right, strict=True) if not is_it]
    assert len(rows) >= 200
    assert sum(right) / len(rows) >= 0.95, wrong
    told = f"{sum(right)} of {len(rows)}"
    assert told in (ROOT / "docs/prompts.md").read_text(encoding="utf-8"), told


@pytest.mark.parametrize("row", [r for r in phrasings() if r["kind"] == "nonsense"])
def test_nonsense_is_refused_with_what_is_known(row):
    with pytest.raises(ValueError, match="Known are: meadow"):
        understand(row["phrase"], Scene())


def test_the_answer_tells_what_was_understood_and_the_nearest_of_what_was_not():
    scene, answer = understand("a beach at sunset with a dessrtx, running", Scene())
    assert scene == Scene("beach", "sunset", "clear", "red jacket")
    assert answer == (
        "beach · sunset; not understood: dessrtx (nearest: desert); run: with keys, not with words"
    )


def test_of_two_places_the_one_that_is_left_out_is_told():
    scene, answer = understand("a desert or a city", Scene())
    assert scene.place == "desert"
    assert answer == "desert; not understood: city"


def test_another_teacher_s_words_are_read_by_the_same_parser():
    roads = Vocabulary(
        names={"road": {"ice": ("icy road",), "gravel": ()}, "sky": {"dark": ()}},
        hints={"road": {"ice": ("winter",)}},
        opposites={("road", "ice"): "gravel"},
        nouns={"red car": ("car",)},
        colours={"red car": ("red",), "blue car": ("blue",)},
        coloured="car",
        wearing=("in",),
        negations=("no",),
        alternatives=("or",),
        turns=("but",),
        fillers=("a", "with"),
    )
    assert roads.understand("no icy raod, but a drak sky").names == {
        "road": "gravel",
        "sky": "dark",
    }
    assert roads.understand("winter").names == {"road": "ice"}
    with_car = replace(roads, names={**roads.names, "car": {"blue car": ()}})
    heard = with_car.understand("a blue car with wings")
    assert (heard.names, [said for said, _ in heard.unknown]) == ({"car": "blue car"}, ["wings"])
