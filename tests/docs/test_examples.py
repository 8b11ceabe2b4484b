"""The examples of a study of one's own are studies, scored on windows as long as what they train on."""

import re
from pathlib import Path

import pytest
import yaml

from coolbits.study.load import parse_study
from coolbits.study.plan import resolve

ROOT = Path(__file__).resolve().parents[2]


def blocks(path: Path, heading: str) -> str:
    """Return the YAML under a heading of level two, end to end, as a reader would write it into one file."""
    section = path.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "".join(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "A study of your own"), ("docs/studies.md", "An example, step by step")]
)
def test_the_example_is_scored_and_calibrated_on_what_it_trains_on(page: str, heading: str, tmp_path: Path) -> None:
    plan = resolve(parse_study(yaml.safe_load(blocks(ROOT / page, heading))), tmp_path)
    trained = {node.recipe["trajectory"]["sequence_length"] for node in plan.of_kind("checkpoint")}
    scored = {node.recipe["measure"]["sequence_length"] for node in plan.of_kind("evaluation")}
    shown = {node.recipe["calibration"]["sequence_length"] for node in plan.of_kind("calibration")}
    assert trained == scored == shown == {64}
    assert plan.of_kind("figure")
