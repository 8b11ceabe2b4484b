"""The stage of claims: files, verdicts, and a page that stands alone."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.claims import stage
from coolbits.claims.names import CLAIMS
from coolbits.claims.page import page
from coolbits.claims.registry import REGISTRY
from coolbits.claims.verdict import SUPPORTED, UNDECIDED, UNTESTED
from coolbits.study.recipes.results import Claims

SCALE = "micro: 0.2M parameters & <small>"
Study = tuple[pd.DataFrame, pd.DataFrame]
Make = Callable[..., pd.DataFrame]
Frames = dict[str, dict[str, pd.DataFrame]]  # the files of each table


@pytest.fixture(scope="module")
def frames(
    study: Callable[..., Study],
    classifiers: Make,
    finetunings: Make,
    tasks: Make,
    curvatures: Make,
    memory_table: pd.DataFrame,
    theory_table: pd.DataFrame,
) -> Callable[[int], Frames]:
    """Return a function of the number of seeds that gives all tables of a study that supports every claim."""

    def make(seeds: int) -> Frames:
        table, documents = study(1.0, seeds)
        alone = {
            "vision": classifiers(seeds=seeds),
            "finetuning": finetunings(seeds=seeds),
            "tasks": tasks(table),
            "curvature": curvatures(table),
            "memory": memory_table,
            "theory": theory_table,
        }
        own = {name: {"table": frame} for name, frame in alone.items()}
        return {"loss": {"table": table, "documents": documents}} | own

    return make


@pytest.fixture(scope="module")
def made(frames: Callable[[int], Frames], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the claims of a study that supports them all."""
    store = Store(tmp_path_factory.mktemp("made"), Slice("test", {}))
    node = _node(store, frames(3))
    assert stage.run(Job("claims", "claims", (node,)), store) == 1
    assert stage.run(Job("claims", "claims", (node,)), store) == 0
    return node.directory(store.root)


def _table(store: Store, name: str, **frames: pd.DataFrame) -> Node:
    """Return a table made of files."""
    node = make_node("table", name, {}, {})

    def build(out: Path) -> dict[str, int]:
        for file, frame in frames.items():
            frame.to_parquet(out / f"{file}.parquet", index=False)
        return {"rows": len(frames["table"])}

    store.ensure(node, build)
    return node


def _node(store: Store, frames: Frames) -> Node:
    tables = {name: _table(store, name, **files) for name, files in frames.items()}
    tables["metrics"] = _table(store, "metrics", table=frames["loss"]["table"])
    recipe = Claims(claims=CLAIMS, scale=SCALE, samples=200)
    return make_node("claims", "micro/claims", recipe.identity(), {name: node.ref for name, node in tables.items()})


def test_every_claim_has_a_verdict_with_its_evidence(made: Path) -> None:
    report, text = json.loads((made / "claims.json").read_text()), (made / "claims.html").read_text()
    assert (report["study"], report["scale"]) == ("micro", SCALE)
    assert [entry["id"] for entry in report["claims"]] == list(CLAIMS)
    for entry in report["claims"]:
        claim = REGISTRY[entry["id"]]
        assert entry["n"] > 0 and entry["rule"] and entry["unit"] in entry["reading"]
        if claim.form == "exact":
            assert (entry["low"], entry["high"], entry["verdict"]) == (None, None, SUPPORTED)
            assert "(exact)" in entry["reading"] and "there is no interval" in entry["rule"]
        else:
            assert entry["low"] <= entry["effect"] <= entry["high"] and entry["units"] == 3
            effect, interval = f"{entry['effect']:+.3g}", f"{entry['low']:+.3g} to {entry['high']:+.3g}"
            assert f"{effect} {entry['unit']} (interval {interval})" in entry["reading"]
            count = f"{entry['n']} from 3 units; resampled: {entry['resampled']}"
            assert f'<td class="number">{effect}</td><td class="number">{interval}</td><td>{count}</td>' in text
        assert entry["resampled"] == ("documents" if claim.table == "loss" else "nothing")
        assert ("bootstrap over documents" in entry["rule"]) == (claim.table == "loss")
    verdicts = read_manifest(made).summary["verdicts"]
    assert verdicts["decay-raises-error/gptq-w3"] == "supported"
    assert pd.read_parquet(made / "claims.parquet").verdict.tolist() == list(verdicts.values())


def test_the_curvature_of_quantized_models_has_no_part_in_a_verdict(
    study: Callable[..., Study], curvatures: Make, tmp_path: Path
) -> None:
    own = curvatures(study(1.0, 3)[0])
    quantized = own.assign(quantizer="gptq-w3", measurement=own.measurement + 999)
    quantized.loc[quantized.final.astype(bool), "top_eigenvalue"] *= 9
    found = []
    for place, table in enumerate((own, pd.concat([quantized, own], ignore_index=True))):
        out = tmp_path / str(place)
        out.mkdir()
        table.to_parquet(out / "table.parquet")
        recipe = Claims(claims=("decay-raises-sharpness",), scale=SCALE, samples=50)
        stage.build_claims(recipe, {"curvature": out}, "micro", out)
        found.append(json.loads((out / "claims.json").read_text())["claims"])
    assert found[0] == found[1]


def test_fallbacks_behind_a_verdict_are_beside_it(study: Callable[..., Study], tmp_path: Path) -> None:
    """Two of the six models of a seed behind it: trunk and cooldowns. The loss at full precision knows no fallback."""
    table, documents = study(1.0, 1)
    fallen = (table.trajectory == "branch4-s0") | ((table.trajectory == "trunk-s0") & (table.tokens // 4096 == 1953))
    quantized = (table.quantizer != "none") & (table.source == "checkpoint")
    table.assign(fallbacks=table.fallbacks.mask(fallen & quantized, 3)).to_parquet(tmp_path / "table.parquet")
    documents.to_parquet(tmp_path / "documents.parquet")
    names = ("decay-raises-error", "decay-lowers-loss", "muon-8d-error")
    stage.build_claims(Claims(claims=names, scale=SCALE, samples=50), {"loss": tmp_path}, "micro", tmp_path)
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [(entry["fallen"], entry["models"]) for entry in entries] == [(2, 6), (0, 0), (0, 2)]
    text = (tmp_path / "claims.html").read_text()
    assert text.count("had a fallback") == 1
    assert (
        '<td><span class="yes">supported</span><br><span class="small">2 of 6 models behind this had a fallback</span>'
        in text
    )


@pytest.mark.parametrize("nats", [float("nan"), float("inf")])
def test_models_without_a_finite_loss_are_left_out_and_counted(
    study: Callable[..., Study], tmp_path: Path, nats: float
) -> None:
    """At full precision the same models have a loss, and are not left out."""
    table, documents = study(1.0, 2)
    broken = (table.quantizer != "none") & (table.trajectory == "branch4-s1")
    lost = set(table.index[broken])
    table.assign(relative_error=table.relative_error.mask(broken, nats)).to_parquet(tmp_path / "table.parquet")
    changed = [[nats] if row in lost else own for row, own in zip(documents.row, documents.nats, strict=True)]
    documents.assign(nats=changed).to_parquet(tmp_path / "documents.parquet")
    names = ("decay-raises-error", "decay-lowers-loss", "wsd-vs-cosine")
    stage.build_claims(Claims(claims=names, scale=SCALE, samples=50), {"loss": tmp_path}, "micro", tmp_path)
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    said = "Models of the table left out, as their loss is not finite: 1."
    assert [said in entry["reading"] for entry in entries] == [True, False, True]
    assert [(entry["n"], entry["uneven"]) for entry in entries[:2]] == [(4, 1), (6, 0)]
    assert "Comparisons left out, since other units (seeds) have no like of them: 1." in entries[0]["reading"]


def test_runs_that_diverged_are_said_where_none_is_on_trial(study: Callable[..., Study], tmp_path: Path) -> None:
    table, documents = study(1.0, 2)
    lost = table.trajectory == "rate-high-end-s1"
    table.loc[lost, ["loss", "base_loss", "relative_error"]] = float("nan")
    table.loc[lost, "outcome"] = "diverged"
    table.to_parquet(tmp_path / "table.parquet")
    documents[~documents.row.isin(table.index[lost])].to_parquet(tmp_path / "documents.parquet")
    recipe = Claims(claims=("higher-rate-lowers-error", "decay-raises-error"), scale=SCALE, samples=50)
    stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    said = "Of the runs that would be compared 1 diverged and are left out."
    assert [(entry["lost"], said in entry["reading"]) for entry in entries] == [(1, True), (0, False)]


def test_of_two_measures_of_losses_one_is_judged_on_and_named(study: Callable[..., Study], tmp_path: Path) -> None:
    """`validation` has final models alone, and more tokens; quantized, errors on it are higher by five points."""
    table, documents = study(1.0, 2)
    own, lists = table.assign(measure="loss", scored_tokens=100), documents.set_index("row")
    finals = own[own.final.astype(bool)].assign(measure="validation", scored_tokens=900)
    longer = lists.loc[finals.index].map(lambda entry: np.tile(entry, 2))
    raised = (finals.quantizer != "none").to_numpy()
    longer["nats"] = longer.nats + longer.base_nats * (0.05 * raised)
    both = pd.concat([finals, own], ignore_index=True)
    both.to_parquet(tmp_path / "table.parquet")
    every = pd.concat([longer, lists.loc[own.index]]).assign(row=range(len(both)))
    every.to_parquet(tmp_path / "documents.parquet", index=False)
    names = ("decay-raises-error", "decay-lowers-loss", "muon-8d-error", "muon-8d-trains-as-well")
    recipe = Claims(claims=names, scale=SCALE, samples=50)
    stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [entry["measure"] for entry in entries] == ["loss", "loss", "validation", "validation"]
    assert entries[0]["effect"] == pytest.approx(2.0, abs=0.1)
    assert entries[0]["reading"].endswith(
        "Measured by the evaluation loss; numbers of validation do not compare with these."
    )


def test_the_page_says_where_units_are_no_seeds(finetunings: Make, tmp_path: Path) -> None:
    table = finetunings()
    table.assign(data_seed=table.seed, start="org/model").to_parquet(tmp_path / "table.parquet")
    recipe = Claims(claims=("finetuning-muon-8l-trains-as-well",), scale=SCALE)
    stage.build_claims(recipe, {"finetuning": tmp_path}, "micro", tmp_path)
    assert "the interval does not speak of other starts" in (tmp_path / "claims.html").read_text()


def test_the_page_says_that_intervals_are_not_corrected(made: Path) -> None:
    text = (made / "claims.html").read_text()
    assert "95 % each, not corrected for how many claims and quantizers there are" in text


def test_the_page_is_escaped_and_needs_nothing_else(made: Path) -> None:
    text = (made / "claims.html").read_text()
    assert "0.2M parameters &amp; &lt;small&gt;" in text and "<small>" not in text
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(name for name, _ in attrs if name in ("src", "href"))
            assert tag not in ("script", "link", "img")

    Links().feed(text)
    assert links == [] and "url(" not in text
    for name in CLAIMS:
        assert f'<section id="{name}">' in text
    assert all(entry["reading"].split("{")[0] for entry in json.loads((made / "claims.json").read_text())["claims"])


def test_a_claim_without_rows_says_what_it_needs(study: Callable[..., Study], tmp_path: Path) -> None:
    table, documents = study(1.0, 1)
    table.loc[table.optimizer == "muon", "optimizer"] = "lion"
    table = table.assign(bits=4, quantizer="gptq-w4").astype({"bits": "Int64"})
    table.to_parquet(tmp_path / "table.parquet")
    documents.to_parquet(tmp_path / "documents.parquet")
    recipe = Claims(claims=("muon-vs-adamw", "averaging-beats-decay-at-low-bits"), scale=SCALE, samples=50)
    summary = stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    assert summary["verdicts"] == {
        "muon-vs-adamw/gptq-w4": "no rows in this study",
        "averaging-beats-decay-at-low-bits/none": "no rows in this study",
    }
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert all("needed:" in entry["reading"] and entry["effect"] is None for entry in entries)
    assert "no rows in this study" in page(entries, "micro", SCALE, 0.95)


def test_claims_about_the_loss_are_judged_once_and_need_no_quantizer(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    table, documents = study(1.0, 1)
    full = table[table.quantizer == "none"]
    kept = documents[documents.row.isin(full.index)]
    full.reset_index(drop=True).to_parquet(tmp_path / "table.parquet")
    kept.assign(row=range(len(kept))).to_parquet(tmp_path / "documents.parquet")
    recipe = Claims(claims=("muon-8l-trains-as-well",), scale=SCALE, samples=50)
    summary = stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    assert summary["verdicts"] == {"muon-8l-trains-as-well/none": "supported"}
    with pytest.raises(CoolbitsError, match="no quantized model"):
        recipe = Claims(claims=("decay-raises-error",), scale=SCALE)
        stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)


def test_a_variant_that_always_diverged_has_a_verdict_without_numbers(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    table, documents = study(1.0, 2)
    lost = (table.optimizer == "adamw") & (table.states == "8L")
    table.loc[lost, ["loss", "base_loss", "relative_error"]] = float("nan")
    table.loc[lost, "outcome"] = "diverged"
    table.to_parquet(tmp_path / "table.parquet")
    documents[~documents.row.isin(table.index[lost])].to_parquet(tmp_path / "documents.parquet")
    recipe = Claims(claims=("adamw-8l-unstable",), scale=SCALE, samples=50)
    stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    (entry,) = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert (entry["verdict"], entry["effect"], entry["n"]) == ("supported", None, 0)
    assert (entry["runs"], entry["diverged"]) == (2, 2)
    assert entry["reading"] == "Of 2 runs on trial 2 diverged."


def test_one_seed_says_that_only_documents_were_resampled(study: Callable[..., Study], tmp_path: Path) -> None:
    table, documents = study(1.0, 1)
    table.to_parquet(tmp_path / "table.parquet")
    documents.to_parquet(tmp_path / "documents.parquet")
    recipe = Claims(claims=("decay-raises-error",), scale=SCALE, samples=50)
    stage.build_claims(recipe, {"loss": tmp_path}, "micro", tmp_path)
    (entry,) = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert (entry["units"], entry["resampled"]) == (1, "documents only, one unit")


def test_claims_need_a_table(tmp_path: Path) -> None:
    node = make_node("claims", "micro/claims", Claims(claims=("decay-raises-error",), scale=SCALE).identity(), {})
    with pytest.raises(CoolbitsError, match="loss evaluation, `vision`, `finetuning` or an analysis"):
        stage.run(Job("claims", "claims", (node,)), Store(tmp_path, Slice("test", {})))


def test_a_table_that_a_study_has_not_gives_its_claims_no_rows(frames: Callable[[int], Frames], tmp_path: Path) -> None:
    """Tasks need the losses, too, to choose the best settings by."""
    places = {name: tmp_path / name for name in stage.TABLES}
    for name, files in frames(1).items():
        places[name].mkdir()
        for file, frame in files.items():
            frame.to_parquet(places[name] / f"{file}.parquet")

    def tested(*tables: str) -> set[str]:
        recipe = Claims(claims=CLAIMS, scale=SCALE, samples=50)
        summary = stage.build_claims(recipe, {name: places[name] for name in tables}, "micro", tmp_path)
        return {name.partition("/")[0] for name, said in summary["verdicts"].items() if said != UNTESTED}

    def about(*tables: str) -> set[str]:
        return {name for name in CLAIMS if REGISTRY[name].table in tables}

    assert all(tested(alone) == about(alone) for alone in stage.TABLES if alone != "tasks")
    assert tested("tasks") == set()
    assert tested("tasks", "loss") == about("tasks", "loss")
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    (images,) = (entry for entry in entries if entry["id"] == "vision-sgdm-8l-trains-as-well")
    assert images["reading"].startswith("The study has no rows to test it on; needed: finished classifiers of SGDM-32")


def test_the_page_says_where_there_is_no_interval(classifiers: Make, tmp_path: Path) -> None:
    classifiers(seeds=1).to_parquet(tmp_path / "table.parquet")
    recipe = Claims(claims=("vision-sgdm-8l-trains-as-well",), scale=SCALE)
    stage.build_claims(recipe, {"vision": tmp_path}, "micro", tmp_path)
    (entry,) = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert (entry["verdict"], entry["low"], entry["high"], entry["units"]) == (UNDECIDED, None, None, 1)
    assert entry["reading"] == (
        "SGDM-8L ended with an accuracy lower than that of SGDM-32 by +0.1 percentage points of accuracy (no interval)."
    )
    text = (tmp_path / "claims.html").read_text()
    assert '<td class="number">+0.1</td><td class="number">–</td><td>1 from 1 unit; resampled: nothing</td>' in text
    assert "margin is ours" in text and "only divergence decides" in text


def test_every_claim_states_its_source_and_leaves_room_for_its_effect() -> None:
    for name, claim in REGISTRY.items():
        assert claim.statement and claim.source and claim.statistic and claim.needs, name
        assert claim.reading.count("{effect}") == 1, name
