"""Lists and names in the docs are those of the code: kinds of artifacts, tables, columns, functions."""

import re
from pathlib import Path
from typing import get_args

import pytest

from coolbits.stages import STAGES
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS, VISION_COLUMNS, Content

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = (ROOT / "docs" / "artifacts.md").read_text()
RESULTS = (ROOT / "results" / "README.md").read_text()
ADDING = (ROOT / "docs" / "adding.md").read_text()
# Folders of the results that hold no artifacts.
PAGES = {"lineage", "settings"}
OTHERS = {"recipes", "logs", "work"}


def part(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def test_the_tree_has_a_folder_for_each_kind_of_artifact_and_page() -> None:
    tree = part(ARTIFACTS, "    results/\n", "## Names")
    assert {*re.findall(r"(?:^|  )(\w+)/", tree, re.MULTILINE)} == {*STAGES} | PAGES | OTHERS


def test_the_tree_has_all_tables() -> None:
    assert part(ARTIFACTS, "table/STUDY/{", "}").split(",") == list(get_args(Content))


@pytest.mark.parametrize("kind", STAGES)
def test_each_kind_of_artifact_is_explained(kind: str) -> None:
    assert f"\n**{kind}**" in part(ARTIFACTS, "## Kinds", "## Token shards")


def test_the_columns_of_tables_are_those_of_the_recipes() -> None:
    described = part(ARTIFACTS, "**table**", "the measured ones")
    of_trajectory, of_model = part(described, "of a trajectory:", "; of a model"), part(described, "of a model", "; of")
    assert named(of_trajectory) == {*TRAJECTORY_COLUMNS, "data_seed"}
    assert named(of_model) == {*MODEL_COLUMNS}
    assert named(part(ARTIFACTS, "Rows of `vision` have", "instead")) == {*VISION_COLUMNS}


def test_the_page_of_the_results_folder_has_every_folder() -> None:
    folders = re.findall(r"^\| (.*?) \|", RESULTS, re.MULTILINE)
    assert named(" ".join(folders)) == {*STAGES} | PAGES | OTHERS


def test_what_the_page_on_adding_names_is_there() -> None:
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    code = {word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    assert named(ADDING) - code == set()
