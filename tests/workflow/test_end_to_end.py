"""One whole run of the tiny study: what lies in the results folder, and what a second run or study does with it."""

import json
import re

import pytest
from PIL import Image

from coolbits.artifacts.manifest import damaged_files, read_manifest
from coolbits.figures.stage import CAPTION

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]


def test_every_node_of_the_plan_was_made_and_matches_its_manifest(finished):
    nodes = finished.plan().nodes
    assert set(finished.manifests()) == {f"{node.kind}/{node.name}" for node in nodes}
    for node in nodes:
        manifest = read_manifest(node.directory(finished.results))
        assert manifest.fingerprint == node.fingerprint
        assert manifest.summary["outcome"] == "complete"
        assert manifest.files
        assert damaged_files(node.directory(finished.results), manifest) == []


def test_a_figure_is_a_vector_and_a_picture_that_name_what_they_are_drawn_from(finished):
    folder = finished.results / "figure" / "tiny" / "tokens"
    lineage = read_manifest(folder).summary["lineage"]
    assert f"coolbits:{lineage}" in (folder / "tokens.svg").read_text()
    with Image.open(folder / "tokens.png") as picture:
        assert picture.text["coolbits"] == lineage
        assert min(picture.size) > 500


def test_the_report_shows_figures_with_captions_and_the_page_of_claims(project):
    caption = (project.results / "figure" / "tiny" / "tokens" / CAPTION).read_text().strip()
    assert "tiny: 36.4k parameters, 7.68k tokens, 1 seed" in caption
    project.snakemake("--report", "results/report.html")
    report = (project.results / "report.html").read_text()
    results = json.loads(re.search(r"var results = (\{.*?\});?$", report, re.MULTILINE)[1])
    assert {name: caption[:40] in entry["caption"] for name, entry in results.items()} == {
        "results/figure/tiny/tokens/tokens.svg": True,
        "results/claims/tiny/claims/claims.html": False,
        "results/lineage/tiny/tokens.html": False,
        "results/settings/tiny.html": False,
    }
    figure, page = (
        results[f"results/{path}"] for path in ("figure/tiny/tokens/tokens.svg", "lineage/tiny/tokens.html")
    )
    assert 'href="lineage/tiny/tokens.html"' in figure["caption"]
    assert (figure["labels"], page["labels"]) == (
        {"figure": "tokens", "show": "figure"},
        {"figure": "tokens", "show": "lineage"},
    )
    assert page["data_uri"].startswith("data:text/html")
    # A browser opens no longer one.
    assert len(page["data_uri"]) < 1 << 21


def test_progress_says_how_far_the_study_is(finished):
    said = finished.folder.with_suffix(".log").read_text()
    assert finished.made_and_kept(said)["evaluation"] == (15, 0)
    lines = re.findall(
        r"^study: (\d+) of 14 jobs, (\d+)% of the work done(?:, about (\d+) (?:s|min) left)?$", said, re.MULTILINE
    )
    assert [int(done) for done, *_ in lines] == list(range(1, 15))
    assert all(left for _, share, left in lines if int(share) > 3)  # of less there is no estimate


def test_a_second_study_beside_it_makes_only_what_it_does_not_share(project):
    study = project.study()
    project.write_study(study | {"study": "second"}, "second.yaml")
    assert project.planned("--configfile", "second.yaml") == [
        "claims_second_claims",
        "figure_second_tokens",
        "table_second_ledger",
        "table_second_loss",
        "table_second_metrics",
    ]


def test_all_of_a_kind_is_asked_for_by_its_name(fresh):
    # The kind is a rule as well, one without a job.
    for target in (("calibration",), ("--until", "calibration")):
        assert fresh.kinds(*target) == ["calibration", "calibration", "corpus", "shards", "tokenizer"]
    assert fresh.kinds("images") == ["images"]
