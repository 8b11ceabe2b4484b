"""The stage of claims: from the loss table to verdicts, as JSON, as a table and as a page to read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coolbits.artifacts.each import make_each
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json, write_text
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.claims.claim import Claim
from coolbits.claims.evidence import FULL, Evidence, gather
from coolbits.claims.page import page
from coolbits.claims.registry import claim
from coolbits.claims.verdict import UNTESTED, Effect, Judgement, judge, rule
from coolbits.rows import quantizers
from coolbits.study.recipes.results import Claims


@dataclass(frozen=True)
class Finding:
    """What one claim came to under one quantizer, `none` for full precision.

    Without rows effect and interval are None, and where every one of the `runs` on trial `diverged`.
    """

    id: str
    statement: str
    source: str
    statistic: str
    rule: str
    quantizer: str
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    units: int
    runs: int
    diverged: int
    resampled: str
    verdict: str
    reading: str


def run(job: Job, store: Store) -> int:
    """Judge the claims of a job; return how many artifacts were made."""
    return make_each(job, "study", lambda node: _make(node, store))


def _make(node: Node, store: Store) -> bool:
    if "loss" not in node.parents:
        raise CoolbitsError(f"claims {node.name}: no loss table, on which all claims rest; add a loss evaluation")
    loss = node.parent_directory(store.root, "loss")
    study = node.name.partition("/")[0]
    return store.ensure(node, lambda out: build_claims(Claims.read(node.recipe), loss, study, out))


def build_claims(recipe: Claims, loss: Path, study: str, out: Path) -> dict[str, Any]:
    """Judge the claims on the loss table in the directory `loss`; return the verdicts by claim and quantizer.

    Writes `claims.json` and `claims.parquet` (one entry a claim and quantizer) and `claims.html`.

    Raises:
        CoolbitsError: if a claim has an unknown name, or is one about quantized models and the table has none.
    """
    table, documents = pd.read_parquet(loss / "table.parquet"), pd.read_parquet(loss / "documents.parquet")
    names = quantizers(table)
    if not names and not all(claim(name).full_precision for name in recipe.claims):
        raise CoolbitsError("claims: the study's loss table has no quantized model; add `quantizers` to the study")
    names += [FULL] if any(claim(name).full_precision for name in recipe.claims) else []
    evidence = {name: gather(table, documents, name, recipe.samples, recipe.seed) for name in names}
    findings = [finding for name in recipe.claims for finding in _findings(name, evidence, recipe)]
    entries = [asdict(finding) for finding in findings]
    report = {"study": study, "scale": recipe.scale, "confidence": recipe.confidence, "claims": entries}
    write_json(out / "claims.json", report)
    pd.DataFrame(entries).to_parquet(out / "claims.parquet", index=False)
    write_text(out / "claims.html", page(entries, study, recipe.scale, recipe.confidence))
    return {"verdicts": {f"{finding.id}/{finding.quantizer}": finding.verdict for finding in findings}}


def _findings(name: str, evidence: Mapping[str, Evidence], recipe: Claims) -> list[Finding]:
    chosen = claim(name)
    found = [
        _finding(name, chosen, quantizer, of_quantizer, recipe)
        for quantizer, of_quantizer in evidence.items()
        if _concerns(chosen, quantizer, of_quantizer)
    ]
    return found or [_finding(name, chosen, FULL, None, recipe)]


def _concerns(chosen: Claim, quantizer: str, evidence: Evidence) -> bool:
    if chosen.full_precision or quantizer == FULL:
        return chosen.full_precision and quantizer == FULL
    return bool((evidence.rows.bits <= chosen.most_bits).all())


def _finding(name: str, chosen: Claim, quantizer: str, evidence: Evidence | None, recipe: Claims) -> Finding:
    """Judge one claim on the rows of one quantizer; without rows that it can use, say which it needs."""
    effect = chosen.measure(evidence) if evidence is not None and len(evidence.rows) else None
    judgement = judge(effect, chosen.form, recipe.confidence, recipe.seed) if effect else None
    return Finding(
        id=name,
        statement=chosen.statement,
        source=chosen.source,
        statistic=chosen.statistic,
        rule=rule(chosen.form, recipe.confidence, chosen.margin),
        quantizer=quantizer,
        effect=judgement.effect if judgement else None,
        low=judgement.low if judgement else None,
        high=judgement.high if judgement else None,
        unit=chosen.unit,
        n=effect.n if effect else 0,
        units=len(effect.units) if effect else 0,
        runs=effect.runs if effect else 0,
        diverged=effect.diverged if effect else 0,
        resampled=judgement.resampled if judgement else "nothing",
        verdict=judgement.verdict if judgement else UNTESTED,
        reading=_reading(chosen, effect, judgement),
    )


def _reading(chosen: Claim, effect: Effect | None, judgement: Judgement | None) -> str:
    """Say in words what was found."""
    if effect is None or judgement is None:
        return f"The study has no rows to test it on; needed: {chosen.needs}."
    sentences = []
    if judgement.effect is not None:
        interval = f"{judgement.effect:+.3g} {chosen.unit} (interval {judgement.low:+.3g} to {judgement.high:+.3g})"
        sentences.append(chosen.reading.format(effect=interval))
    if effect.diverged or judgement.effect is None:
        sentences.append(f"Of {effect.runs} runs on trial {effect.diverged} diverged.")
    return " ".join(sentences)
