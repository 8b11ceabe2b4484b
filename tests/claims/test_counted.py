"""Claims on what is counted and computed: the paper's savings on the paper's models, and the theorems' bounds."""

from pathlib import Path

import pandas as pd
import pytest

from coolbits.claims.counted import of_analysis
from coolbits.claims.names import CLAIMS, OF_ANALYSES
from coolbits.claims.registry import REGISTRY
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, Effect, judge
from coolbits.study.load import parse_study
from coolbits.study.plan import resolve

MEMORY = ("memory-all-8-bit", "memory-adamw-in-32-bit")
BOUNDS = {"theorem-2-sgdm": "sgd", "theorem-3-muon": "muon"}
DIGITS = {
    "digits": {
        "data": {"kind": "digits"},
        "model": "resnet-micro",
        "optimizer": "SGDM-32",
        "schedule": {"kind": "cosine", "warmup": 1},
        "peak_lr": 0.03,
        "epochs": 4,
        "batch_images": 64,
        "input_size": 16,
    }
}
Frame = pd.DataFrame


def _effect(name: str, table: Frame) -> Effect | None:
    return REGISTRY[name].measure(of_analysis(table))


def _verdict(name: str, table: Frame) -> str:
    effect = _effect(name, table)
    assert effect is not None
    return judge(effect, REGISTRY[name].form, 0.95).verdict


def test_plans_know_which_analysis_a_claim_needs() -> None:
    """Their names are apart from the claims themselves, so that planning needs no numerical library."""
    needed = {kind: tuple(name for name in CLAIMS if REGISTRY[name].table == kind) for kind in ("memory", "theory")}
    assert needed == OF_ANALYSES


@pytest.mark.parametrize("name", MEMORY)
def test_the_savings_of_the_paper_are_those_counted(name: str, memory_table: Frame) -> None:
    assert _verdict(name, memory_table) == SUPPORTED


def test_savings_are_those_of_whole_models_with_their_scales(memory_table: Frame) -> None:
    """A code and 4 bytes a block of 2,048 for each 4 bytes: 74.95 %, less norms and biases; 62.2 % beside AdamW-32."""
    whole, beside = (_effect(name, memory_table) for name in MEMORY)
    assert whole is not None and beside is not None
    assert list(whole.units) == ["gpt-162m, Muon-8L+AdamW-8D", "gpt-2.7b, Muon-8L+AdamW-8D"]
    assert all(0.85 < float(values[0]) < 0.95 for values in whole.units.values())
    assert list(beside.units) == ["gpt-2.7b, Muon-8L", "gpt-2.7b, Muon-8D"]
    assert all(float(values[0]) == pytest.approx(0.18, abs=0.02) for values in beside.units.values())


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize(("moved", "verdict"), [(-0.011, SUPPORTED), (-0.02, CONTRADICTED), (0.02, CONTRADICTED)])
def test_one_saving_beyond_the_margin_contradicts(name: str, moved: float, verdict: str, memory_table: Frame) -> None:
    effect = _effect(name, memory_table)
    assert effect is not None
    model, _, optimizer = next(iter(effect.units)).partition(", ")
    one = (memory_table.model == model) & (memory_table.optimizer == optimizer)
    assert _verdict(name, memory_table.assign(cut=memory_table.cut + moved * one)) == verdict


def test_only_the_largest_model_is_held_to_its_saving(memory_table: Frame) -> None:
    """ "Up to 62 %": smaller models have more of their parameters in tables, whose AdamW stays in 32 bits."""
    small = memory_table[memory_table.model == "gpt-162m"]
    assert _effect("memory-adamw-in-32-bit", small) is None
    assert _effect("memory-all-8-bit", small) is not None
    assert _effect("memory-all-8-bit", memory_table[memory_table.optimizer == "Muon-8L"]) is None


@pytest.mark.parametrize("name", OF_ANALYSES["theory"])
def test_the_theorems_hold_on_random_states(name: str, theory_table: Frame) -> None:
    effect = _effect(name, theory_table)
    assert effect is not None and set(effect.units) == {"gaussian", "heavy-tailed", "ill-conditioned"}
    assert _verdict(name, theory_table) == SUPPORTED


@pytest.mark.parametrize(("name", "check"), BOUNDS.items())
def test_one_bound_that_is_exceeded_contradicts(name: str, check: str, theory_table: Frame) -> None:
    table = theory_table.copy()
    quantities = ("polar_change",) if check == "muon" else ("largest_change", "relative_change")
    bounds = (table.check == check) & table.bound.notna() & table.quantity.isin(quantities)
    table.loc[bounds.idxmax(), "holds"] = False
    effect, whole = _effect(name, table), _effect(name, theory_table)
    assert effect is not None and whole is not None and effect.n == whole.n == bounds.sum()
    exceeded = sum(float(values[0]) for values in effect.units.values())
    assert exceeded == pytest.approx(100 / (bounds.sum() / 3))
    assert _verdict(name, table) == CONTRADICTED


def test_a_momentum_without_full_rank_has_no_bound(theory_table: Frame) -> None:
    name, polar = "theorem-3-muon", theory_table.quantity == "polar_change"
    unbounded = theory_table.assign(bound=theory_table.bound.mask(polar, float("inf")))
    assert _effect(name, unbounded) is None


def test_adamw_is_contradicted_by_one_update_that_survives_linear_codes(theory_table: Frame) -> None:
    name = "theorem-1-adamw"
    table = theory_table.copy()
    own = (table.check == "adam") & (table.quantity == "relative_change") & (table.step == 1)
    linear = own & table.codec.str.startswith("linear")
    assert table[linear].value.min() > 1
    table.loc[linear.idxmax(), "value"] = 0.5
    assert _verdict(name, table) == CONTRADICTED


def test_updates_after_the_rounded_one_are_no_evidence_of_the_theorem(theory_table: Frame) -> None:
    later = theory_table[theory_table.step == 2]
    assert _effect("theorem-1-adamw", later) is None


def test_states_of_training_runs_count_at_any_step(theory_table: Frame) -> None:
    lent = theory_table[theory_table.step == 1].assign(trajectory="adamw-s0", source="adamw", step=500)
    effect = _effect("theorem-1-adamw", pd.concat([theory_table, lent], ignore_index=True))
    assert effect is not None and "adamw" in effect.units


def test_plans_hand_over_the_analyses_that_claims_are_judged_on() -> None:
    """Those alone, so that an analysis changes no other claims."""
    analyses = {
        "bytes": {"analysis": {"kind": "memory", "models": ["gpt-162m"], "optimizers": ["Muon-8L+AdamW-8D"]}},
        "theory": {"analysis": {"kind": "theory", "rows": 8, "columns": 16}},
    }
    for wanted, kinds in (("all", ["memory", "theory"]), (["memory-all-8-bit"], ["memory"]), (["muon-8l-error"], [])):
        study = parse_study({"study": "counted", "vision": DIGITS, "analyses": analyses, "claims": wanted})
        plan = resolve(study, Path())
        (claims,) = plan.of_kind("claims")
        assert [role for role, ref in claims.parents.items() if ref.kind == "analysis"] == kinds
