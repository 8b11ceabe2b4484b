"""Claims of paper B on what is counted or computed and not trained: bytes of states, and the theorems.

They are judged on the tables of the analyses `memory` and `theory`. No number there is an estimate, so none has an
interval: a claim holds if all of them agree with it.
"""

from functools import partial

import numpy as np
import pandas as pd

from coolbits.claims.claim import PERCENT, POINTS_OF_BYTES, Claim
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect

CUT_MARGIN = 1.0  # percentage points; the paper's numbers have no decimals, and one is "about", the other "up to"
_ALL_8_BIT = tuple(f"Muon-{own}+AdamW-{beside}" for own in ("8L", "8D") for beside in ("8L", "8D"))
_ADAMW_IN_32 = ("Muon-8L", "Muon-8D")
_LARGEST = "gpt-2.7b"
_ADAMW_FLOOR = 1.0  # a change of the update as large as the update


def of_analysis(table: pd.DataFrame) -> Evidence:
    """Return the rows of an analysis as evidence, which has no resamples and lost nothing."""
    return Evidence(table, {}, table.iloc[:0])


def cut_of_states(stated: float, optimizers: tuple[str, ...], model: str | None, evidence: Evidence) -> Effect | None:
    """Return how far the share of bytes saved, in %, lies from the paper's: a unit for each model and optimizer."""
    bars = evidence.rows.drop_duplicates(["model", "optimizer"])
    bars = bars[bars.optimizer.isin(optimizers) & ((bars.model == model) | (model is None))]
    cuts = zip(bars.model, bars.optimizer, bars.cut, strict=True)
    units = {f"{name}, {optimizer}": np.array([100 * cut - stated]) for name, optimizer, cut in cuts}
    return Effect(units, len(units), CUT_MARGIN) if units else None


def sgd_bounds_exceeded(evidence: Evidence) -> Effect | None:
    """Return the percentage of Theorem 2's bounds that are exceeded."""
    rows = evidence.rows
    return _exceptions(rows[(rows.check == "sgd") & rows.bound.notna()], "holds")


def muon_bounds_exceeded(evidence: Evidence) -> Effect | None:
    """Return the percentage of Theorem 3's finite bounds on the exact polar factor that are exceeded."""
    rows = evidence.rows
    return _exceptions(rows[(rows.quantity == "polar_change") & np.isfinite(rows.bound)], "holds")


def adamw_updates_kept(evidence: Evidence) -> Effect | None:
    """Return the percentage of states whose update linear codes of the second moment change by less than its norm.

    Theorem 1 is on the update made from the rounded state, which random states have at step 1.
    """
    rows = evidence.rows
    stored = rows.trajectory.notna() | (rows.step == 1)
    linear = rows.codec.str.startswith("linear").fillna(False).astype(bool)
    own = rows[(rows.check == "adam") & (rows.quantity == "relative_change") & stored & linear]
    return _exceptions(own.assign(lost=own.value > _ADAMW_FLOOR), "lost")


def _exceptions(rows: pd.DataFrame, holds: str) -> Effect | None:
    """Return the percentage of rows that do not hold, a unit for each distribution and training run."""
    shares = 100 * (1 - rows.assign(held=rows[holds].astype(float)).groupby("source").held.mean())
    units = {str(source): np.array([share]) for source, share in shares.items()}
    return Effect(units, len(rows)) if units else None


def _saving(statement: str, source: str, stated: float, optimizers: tuple[str, ...], model: str | None) -> Claim:
    return Claim(
        statement,
        source,
        f"Bytes that {' or '.join(optimizers)} saves against Muon-32, counted on real optimizers of whole models, in "
        f"percent, less {stated:g}.",
        f"The share saved differs from the paper's {stated:g} % by {{effect}}.",
        f"an analysis of memory with {' or '.join(optimizers)}" + (f" on {model}" if model else ""),
        partial(cut_of_states, stated, optimizers, model),
        POINTS_OF_BYTES,
        "exact",
        f"{CUT_MARGIN:g} percentage point",
        full_precision=True,
        table="memory",
    )


COUNTED = {
    "memory-all-8-bit": _saving(
        "With every state in 8 bits the optimizer's states are about 74 % smaller than full-precision Muon's.",
        "paper B, version 1, abstract",
        74.0,
        _ALL_8_BIT,
        None,
    ),
    "memory-adamw-in-32-bit": _saving(
        "8-bit Muon beside an AdamW in 32 bits makes the states up to 62 % smaller, at 2.7B parameters.",
        "paper B, version 3, abstract; that AdamW stays in 32 bits there, and the model's shape, are our reading",
        62.0,
        _ADAMW_IN_32,
        _LARGEST,
    ),
    "theorem-1-adamw": Claim(
        "Linear codes of the second moment change AdamW's update by more than its norm: what rounds to zero is divided "
        "by eps alone.",
        "paper B, theorem 1 (they can change it without bound), known to us from its reviews; that every state shows "
        "it, and that the norm stands for a bound, are our reading",
        "States of which linear codes change AdamW's update by no more than its norm, in percent; random gradients, "
        "blocks of all sizes, and states of training runs. Dynamic codes, which send fewer entries to zero, are not "
        "compared: the theorem does not speak of them.",
        "Of the states {effect} have an update that changed by less than its norm.",
        "an analysis of the theory",
        adamw_updates_kept,
        PERCENT,
        "exact",
        full_precision=True,
        table="theory",
    ),
    "theorem-2-sgdm": Claim(
        "Rounding the momentum changes the update of SGD by no more than a bound, in proportion to the largest entry.",
        "paper B, theorem 2, known to us from its reviews; restated with the constants of the codes",
        "Bounds on the change of the update that are exceeded, in percent; of an entry, of the norm, and of the update "
        "after it.",
        "Of the bounds {effect} were exceeded.",
        "an analysis of the theory",
        sgd_bounds_exceeded,
        PERCENT,
        "exact",
        full_precision=True,
        table="theory",
    ),
    "theorem-3-muon": Claim(
        "Rounding the momentum changes Muon's update by no more than a bound, which its smallest singular value sets.",
        "paper B, theorem 3, known to us from its reviews; restated after Li (1995), Li and Sun (2002)",
        "Bounds on the change of the exact polar factor that are exceeded, in percent, where the momentum has full "
        "rank.",
        "Of the bounds {effect} were exceeded.",
        "an analysis of the theory with momenta of full rank",
        muon_bounds_exceeded,
        PERCENT,
        "exact",
        full_precision=True,
        table="theory",
    ),
}
