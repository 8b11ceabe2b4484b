"""The stage of claims: from the tables to verdicts, as JSON, as a table and as a page to read."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from coolbits.artifacts.each import make_each
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json, write_text
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.claims.claim import Claim
from coolbits.claims.counted import of_analysis
from coolbits.claims.curvature import of_curvature
from coolbits.claims.downstream import of_tasks
from coolbits.claims.evidence import FULL, Evidence, gather, measured
from coolbits.claims.page import page
from coolbits.claims.registry import claim
from coolbits.claims.trainings import of_answers, of_images
from coolbits.claims.verdict import UNTESTED, Effect, Judgement, judge, rule
from coolbits.rows import by_measure, quantizers
from coolbits.study.recipes.results import DOCUMENTS, TABLE, Claims, Evident

TABLES: tuple[str, ...] = get_args(Evident)
Several = Mapping[str, Evidence]  # by measure of losses and curvatures, elsewhere one
Evidences = Mapping[str, Mapping[str, Several]]  # by table, then by quantizer
_OF_TABLE = {"vision": of_images, "finetuning": of_answers, "memory": of_analysis, "theory": of_analysis}
_NUMBERS = {"loss": "loss is not finite", "tasks": "accuracy is not finite", "curvature": "curvature is not positive"}


@dataclass(frozen=True)
class Finding:
    """What one claim came to under one quantizer, `none` for full precision.

    Without rows effect and interval are None, and where every one of the `runs` on trial `diverged`; the interval also
    where the seeds do not decide one. Of the quantized `models` behind it `fallen` had a module that fell back to
    another method. `measure` is the evaluation that took losses or curvatures, if it was judged on such. `lost` and
    `uneven` say what was left out, see `Effect`.
    """

    id: str
    statement: str
    source: str
    statistic: str
    rule: str
    quantizer: str
    measure: str
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    units: int
    runs: int
    diverged: int
    lost_peers: int
    lost: int
    uneven: int
    models: int
    fallen: int
    resampled: str
    verdict: str
    reading: str


def run(job: Job, store: Store) -> int:
    """Judge the claims of a job; return how many artifacts were made."""
    return make_each(job, "study", lambda node: _make(node, store))


def _make(node: Node, store: Store) -> bool:
    tables = {name: node.parent_directory(store.root, name) for name in TABLES if name in node.parents}
    if not tables:
        raise CoolbitsError(
            f"claims {node.name}: no table on which a claim rests; add a loss evaluation, `vision`, `finetuning` or an "
            "analysis"
        )
    study = node.name.partition("/")[0]
    return store.ensure(node, lambda out: build_claims(Claims.read(node.recipe), tables, study, out))


def build_claims(recipe: Claims, tables: Mapping[str, Path], study: str, out: Path) -> dict[str, Any]:
    """Judge the claims on the tables in the directories `tables`; return the verdicts by claim and quantizer.

    Claims on a table of `TABLES` that is not there have no rows.
    Writes `claims.json` and `claims.parquet` (one entry a claim and quantizer) and `claims.html`.

    Raises:
        CoolbitsError: if a claim has an unknown name, or is one about quantized models and the loss table has none.
    """
    evidence = _gathered(recipe, tables)
    findings = [finding for name in recipe.claims for finding in _findings(name, evidence, recipe)]
    entries = [asdict(finding) for finding in findings]
    report = {"study": study, "scale": recipe.scale, "confidence": recipe.confidence, "claims": entries}
    write_json(out / "claims.json", report)
    pd.DataFrame(entries).to_parquet(out / "claims.parquet", index=False)
    write_text(out / "claims.html", page(entries, study, recipe.scale, recipe.confidence))
    return {"verdicts": {f"{finding.id}/{finding.quantizer}": finding.verdict for finding in findings}}


def _gathered(recipe: Claims, tables: Mapping[str, Path]) -> Evidences:
    evidence: dict[str, Mapping[str, Several]] = {}
    if "loss" in tables:
        evidence["loss"] = _of_losses(recipe, tables["loss"])
    if "tasks" in tables and "loss" in tables:
        evidence["tasks"] = {FULL: {"": of_tasks(_read(tables["tasks"]), _read(tables["loss"]))}}
    if "curvature" in tables:
        table = _read(tables["curvature"])
        measures = by_measure(table[table.quantizer == FULL])
        evidence["curvature"] = {FULL: {measure: of_curvature(rows) for measure, rows in measures.items()}}
    for name, of_table in _OF_TABLE.items():
        if name in tables:
            evidence[name] = {FULL: {"": of_table(_read(tables[name]))}}
    return evidence


def _read(table: Path) -> pd.DataFrame:
    return pd.read_parquet(table / TABLE)


def _of_losses(recipe: Claims, loss: Path) -> dict[str, Several]:
    """Return the evidence of the loss table by quantizer and measure, of full precision where a claim asks for it."""
    table, documents = _read(loss), pd.read_parquet(loss / DOCUMENTS)
    names = quantizers(table)
    full = [claim(name).full_precision for name in recipe.claims if claim(name).table == "loss"]
    if not names and not all(full):
        raise CoolbitsError("claims: the study's loss table has no quantized model; add `quantizers` to the study")
    names += [FULL] if any(full) else []
    return {
        name: {
            measure: gather(rows, documents, recipe.samples, recipe.seed)
            for measure, rows in by_measure(table[table.quantizer == name]).items()
        }
        for name in names
    }


def _findings(name: str, evidence: Evidences, recipe: Claims) -> list[Finding]:
    chosen = claim(name)
    found = [
        _finding(name, chosen, quantizer, several, recipe)
        for quantizer, several in evidence.get(chosen.table, {}).items()
        if _concerns(chosen, quantizer, several)
    ]
    return found or [_finding(name, chosen, FULL, {}, recipe)]


def _concerns(chosen: Claim, quantizer: str, several: Several) -> bool:
    if chosen.full_precision or quantizer == FULL:
        return chosen.full_precision and quantizer == FULL
    return all((evidence.rows.bits <= chosen.most_bits).all() for evidence in several.values())


def _finding(name: str, chosen: Claim, quantizer: str, several: Several, recipe: Claims) -> Finding:
    """Judge one claim on the rows of one quantizer; without rows that it can use, say which it needs."""
    measure, effect, behind = _tested(chosen, several)
    judgement = judge(effect, chosen.form, recipe.confidence) if effect else None
    return Finding(
        id=name,
        statement=chosen.statement,
        source=chosen.source,
        statistic=chosen.statistic,
        rule=rule(chosen.form, recipe.confidence, chosen.margin, resampled=chosen.table == "loss"),
        quantizer=quantizer,
        measure=measure,
        effect=judgement.effect if judgement else None,
        low=judgement.low if judgement else None,
        high=judgement.high if judgement else None,
        unit=chosen.unit,
        n=effect.n if effect else 0,
        units=len(effect.units) if effect else 0,
        runs=effect.runs if effect else 0,
        diverged=effect.diverged if effect else 0,
        lost_peers=effect.lost_peers if effect else 0,
        lost=effect.lost if effect else 0,
        uneven=effect.uneven if effect else 0,
        models=len(behind) if effect else 0,
        fallen=int((behind.fallbacks > 0).sum()) if effect and len(behind) else 0,
        resampled=judgement.resampled if judgement else "nothing",
        verdict=judgement.verdict if judgement else UNTESTED,
        reading=" ".join(_reading(chosen, effect, judgement, measure, several)),
    )


def _tested(chosen: Claim, several: Several) -> tuple[str, Effect | None, pd.DataFrame]:
    """Return the first measure of which the claim has rows, its effect there, and the quantized models behind it."""
    for measure, evidence in several.items():
        effect, behind = measured(chosen.measure, evidence) if len(evidence.rows) else (None, pd.DataFrame())
        if effect:
            return measure, effect, behind
    return next(iter(several), ""), None, pd.DataFrame()


def _reading(
    chosen: Claim, effect: Effect | None, judgement: Judgement | None, measure: str, several: Several
) -> Iterator[str]:
    """Yield sentences that say what was found, on which of several measures, and what had no part in it."""
    if effect is None or judgement is None:
        yield f"The study has no rows to test it on; needed: {chosen.needs}."
    else:
        if judgement.effect is not None:
            known = judgement.low is not None and judgement.high is not None
            interval = f"interval {judgement.low:+.3g} to {judgement.high:+.3g}" if known else "no interval"
            interval = "exact" if chosen.form == "exact" else interval
            yield chosen.reading.format(effect=f"{judgement.effect:+.3g} {chosen.unit} ({interval})")
        if effect.diverged or judgement.effect is None:
            yield f"Of {effect.runs} runs on trial {effect.diverged} diverged."
        if effect.lost_peers:
            yield f"Of the runs that they are compared with {effect.lost_peers} diverged."
        if effect.lost:
            yield f"Of the runs that would be compared {effect.lost} diverged and are left out."
        if effect.uneven:
            yield f"Comparisons left out, since other units (seeds) have no like of them: {effect.uneven}."
        if effect.caveat:
            yield effect.caveat
        if len(several) > 1:
            others = ", ".join(name for name in several if name != measure)
            yield f"Measured by the evaluation {measure}; numbers of {others} do not compare with these."
    if several and (broken := several[measure].broken):
        yield f"Models of the table left out, as their {_NUMBERS[chosen.table]}: {broken}."
