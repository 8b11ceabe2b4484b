"""Claims about low-bit states: equivalence, divergence and advantage of the loss; the error of such models."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from coolbits.claims.evidence import FULL, Evidence, gather
from coolbits.claims.registry import REGISTRY
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, judge

Study = tuple[pd.DataFrame, pd.DataFrame]
PARITY = {
    "muon-8l": ("muon", "8L"),
    "muon-8d": ("muon", "8D"),
    "adamw-8d": ("adamw", "8D"),
    "sgdm-8l": ("sgd", "8L"),
    "sgdm-8d": ("sgd", "8D"),
}
UNSTABLE = "adamw-8l-unstable"


@pytest.fixture(scope="module")
def variants(study: Callable[..., Study]) -> Study:
    """The model that every variant trained, with the effects of paper B."""
    return _of_model(study(1.0, 2))


def _of_model(study: Study) -> Study:
    table, documents = study
    return table[table.model == "variants"], documents


def _rows(table: pd.DataFrame, optimizer: str, states: str) -> pd.Series:
    return (table.optimizer == optimizer) & (table.states == states)


def _slower(study: Study, optimizer: str, states: str, factor: float, where: pd.Series | bool = True) -> Study:
    """Raise the loss of one variant."""
    table, documents = study
    raised = set(table.index[_rows(table, optimizer, states) & where])
    scaled = [
        base * factor if row in raised else base for row, base in zip(documents.row, documents.base_nats, strict=True)
    ]
    losses = table.base_loss.mask(table.index.isin(raised), table.base_loss * factor)
    return table.assign(base_loss=losses), documents.assign(base_nats=scaled)


def _diverged(study: Study, lost: pd.Series) -> Study:
    """Make the runs of the rows `lost` diverge at step 7."""
    table, documents = study[0].copy(), study[1]
    table.loc[lost, ["loss", "base_loss", "relative_error"]] = np.nan
    table.loc[lost, "outcome"] = "diverged"
    table.loc[lost, "diverged_step"] = 7
    return table, documents[~documents.row.isin(table.index[lost])]


def _at_rate(study: Study, optimizer: str, states: str, rate: float) -> Study:
    """Add the same runs of one variant at another peak rate."""
    table, documents = study
    chosen = table[_rows(table, optimizer, states)].copy()
    places = np.arange(len(chosen)) + documents.row.max() + 1
    copies = documents.set_index("row").loc[chosen.index].assign(row=places)
    for name in ("trajectory", "family"):
        chosen[name] += f"-lr{rate:g}"
    return pd.concat([table, chosen.assign(peak_lr=rate).set_index(places)]), pd.concat([documents, copies])


def _evidence(study: Study, quantizer: str = FULL) -> Evidence:
    table, documents = study
    return gather(table[table.quantizer == quantizer], documents, 200, 0)


def _effect(name: str, study: Study) -> Effect | None:
    return REGISTRY[name].measure(_evidence(study, FULL if REGISTRY[name].full_precision else "gptq-w3"))


def _verdict(name: str, study: Study) -> str:
    effect = _effect(name, study)
    assert effect is not None
    return judge(effect, REGISTRY[name].form, 0.95).verdict


@pytest.mark.parametrize("name", PARITY)
def test_parity_holds_within_one_percent_of_the_loss(name: str, variants: Study) -> None:
    claim = f"{name}-trains-as-well"
    assert _verdict(claim, variants) == SUPPORTED
    assert _verdict(claim, _slower(variants, *PARITY[name], 1.008)) == SUPPORTED
    assert _verdict(claim, _slower(variants, *PARITY[name], 1.02)) == CONTRADICTED


@pytest.mark.parametrize("name", PARITY)
def test_a_variant_that_diverges_does_not_train_as_well(name: str, variants: Study) -> None:
    lost = _rows(variants[0], *PARITY[name])
    all_lost, one_lost = (_diverged(variants, lost & (variants[0].seed >= first)) for first in (0, 1))
    effect = _effect(f"{name}-trains-as-well", all_lost)
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (0, 2, 2)
    judgement = judge(effect, "equivalence", 0.95)
    assert (judgement.effect, judgement.low, judgement.high) == (None, None, None)
    assert judgement.verdict == CONTRADICTED
    effect = _effect(f"{name}-trains-as-well", one_lost)
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (1, 1, 2)
    assert _verdict(f"{name}-trains-as-well", one_lost) == CONTRADICTED


def test_a_run_whose_32_bit_twin_diverged_too_is_not_held_against_it(variants: Study) -> None:
    table = variants[0]
    lost = (_rows(table, "muon", "8L") | _rows(table, "muon", "32")) & (table.seed == 1)
    effect = _effect("muon-8l-trains-as-well", _diverged(variants, lost))
    assert effect is not None and (effect.n, effect.diverged, effect.runs, effect.lost_peers) == (1, 0, 1, 1)
    assert judge(effect, "equivalence", 0.95).verdict == SUPPORTED


def test_a_twin_read_the_data_in_the_same_order(variants: Study) -> None:
    """Two orders of one seed: that the 32-bit form diverged in one excuses nothing in the other."""
    table, documents = variants
    table = table.assign(seed=0)
    lost = _rows(table, "muon", "32") & (table.data_seed == 1) | _rows(table, "muon", "8L") & (table.data_seed == 0)
    effect = _effect("muon-8l-trains-as-well", _diverged((table, documents), lost))
    assert effect is not None and (effect.diverged, effect.runs, effect.lost_peers) == (1, 1, 1)
    assert judge(effect, "equivalence", 0.95).verdict == CONTRADICTED


@pytest.mark.parametrize("variant", [("adamw", "32"), ("muon", "32")])
def test_a_loss_is_not_lower_where_a_run_at_a_best_setting_diverged(variant: tuple[str, str], variants: Study) -> None:
    table = variants[0]
    assert _verdict("muon-beats-adamw", variants) == SUPPORTED
    one_lost = _diverged(variants, _rows(table, *variant) & (table.seed == 1))
    assert _verdict("muon-beats-adamw", one_lost) == UNDECIDED


def test_a_variant_that_diverged_in_all_runs_has_no_loss_to_be_higher(variants: Study) -> None:
    lost = _rows(variants[0], "muon", "8L+8L")
    assert _verdict("hybrid-8l-costs-loss", _diverged(variants, lost)) == UNDECIDED


def test_every_variant_is_judged_at_its_best_setting(variants: Study) -> None:
    slow = _slower(variants, "muon", "8L", 1.05)
    assert _verdict("muon-8l-trains-as-well", slow) == CONTRADICTED
    table, documents = _at_rate(variants, "muon", "8L", 2e-2)
    best = set(table.index[table.peak_lr == 2e-2])
    factors = np.where(_rows(table, "muon", "8L") & ~table.index.isin(best), 1.05, 1.0)
    scaled = dict(zip(table.index, factors, strict=True))
    nats = [scaled.get(row, 1.0) * base for row, base in zip(documents.row, documents.base_nats, strict=True)]
    tuned = table.assign(base_loss=table.base_loss * factors), documents.assign(base_nats=nats)
    assert _verdict("muon-8l-trains-as-well", tuned) == SUPPORTED


def test_unstable_is_what_diverges_in_every_run(variants: Study) -> None:
    table = variants[0]
    lost = _rows(table, "adamw", "8L")
    assert _verdict(UNSTABLE, _diverged(variants, lost)) == SUPPORTED
    healthy = _slower(variants, "adamw", "8L", 0.86)
    assert _verdict(UNSTABLE, healthy) == CONTRADICTED
    assert _verdict(UNSTABLE, _diverged(healthy, lost & (table.seed == 1))) == UNDECIDED


def test_unstable_is_what_stalls(variants: Study) -> None:
    effect = _effect(UNSTABLE, variants)
    assert effect is not None and effect.diverged == 0
    assert judge(effect, "instability", 0.95).effect > 5
    assert _verdict(UNSTABLE, variants) == SUPPORTED


def test_a_rate_at_which_the_32_bit_form_diverged_too_proves_nothing(variants: Study) -> None:
    hot = _at_rate(_at_rate(_slower(variants, "adamw", "8L", 0.86), "adamw", "8L", 1.0), "adamw", "32", 1.0)
    table = hot[0]
    both = _diverged(hot, table.peak_lr == 1.0)
    assert _verdict(UNSTABLE, both) == CONTRADICTED
    effect = _effect(UNSTABLE, both)
    assert effect is not None and (effect.diverged, effect.runs, effect.lost_peers) == (0, 2, 0)
    alone = _diverged(hot, (table.peak_lr == 1.0) & (table.states == "8L"))
    assert _verdict(UNSTABLE, alone) == UNDECIDED


def test_losses_differ_by_as_much_as_they_were_made_to(variants: Study) -> None:
    sizes = {"muon-beats-adamw": 0.05, "muon-8l-beats-adamw": 0.05}
    sizes |= {"hybrid-8d-costs-loss": 0.01, "hybrid-8l-costs-loss": 0.02}
    for name, size in sizes.items():
        effect = _effect(name, variants)
        assert effect is not None
        assert judge(effect, "direction", 0.95).effect == pytest.approx(size, abs=0.002)


def test_errors_are_compared_at_equal_settings(variants: Study) -> None:
    """Where the 32-bit form's best rate was not tried with 8 bits, nothing is compared."""
    ways = ("", "-at-equal-loss-after-cooldown", "-at-equal-loss-at-constant-rate", "-at-constant-rate")
    names = [f"muon-8l-error{way}" for way in ways]
    assert all(_verdict(name, variants) == "observed: higher" for name in names)
    table, documents = variants
    elsewhere = table.assign(peak_lr=table.peak_lr.mask(_rows(table, "muon", "8L"), 2e-2)), documents
    assert [name for name in names if _effect(name, elsewhere)] == []


@pytest.mark.parametrize("name", ["muon-vs-adamw", "muon-8l-error"])
def test_a_rate_at_which_most_runs_diverged_is_no_best_setting(name: str, study: Callable[..., Study]) -> None:
    """Errors are compared where losses are: the seed that survived a hot rate, with a lower loss, does not decide."""
    variants = _of_model(study(1.0, 3))
    table, documents = _at_rate(_at_rate(variants, "muon", "32", 1.0), "muon", "8L", 1.0)
    hot = table.peak_lr == 1.0
    lower = _slower((table, documents), "muon", "32", 0.99, hot)
    effect, expected = _effect(name, _diverged(lower, hot & (table.seed > 0))), _effect(name, variants)
    assert effect is not None and expected is not None
    assert (effect.n, list(effect.units)) == (3, ["0", "1", "2"])
    assert (effect.diverged, effect.runs, effect.lost_peers) == (0, 3, 0)
    assert judge(effect, "open", 0.95) == judge(expected, "open", 0.95)


def test_models_that_quantization_broke_have_a_say_in_the_best_setting(study: Callable[..., Study]) -> None:
    """At the hot rate one seed trains better and two worse, and of these two the quantized loss is not finite."""
    variants = _of_model(study(1.0, 3))
    both = _at_rate(_at_rate(variants, "muon", "32", 2e-2), "muon", "8L", 2e-2)
    hot = both[0].peak_lr == 2e-2
    better = _slower(both, "muon", "32", 0.99, hot & (both[0].seed == 0))
    table, documents = _slower(better, "muon", "32", 1.05, hot & (both[0].seed > 0))
    broken = hot & _rows(table, "muon", "32") & (table.seed > 0) & (table.quantizer != "none")
    table = table.assign(relative_error=table.relative_error.mask(broken))
    effect, expected = _effect("muon-8l-error", (table, documents)), _effect("muon-8l-error", variants)
    assert effect is not None and expected is not None and effect.n == 3
    assert judge(effect, "open", 0.95) == judge(expected, "open", 0.95)


@pytest.mark.parametrize("way", ["", "-at-equal-loss-after-cooldown", "-at-constant-rate"])
def test_an_error_says_how_many_runs_have_none_because_they_diverged(way: str, variants: Study) -> None:
    """None of them: the study has rows, yet nothing is decided. Nor is a run on trial whose 32-bit twin was lost."""
    name, table = f"adamw-8d-error{way}", variants[0]
    tested, one_seed = _rows(table, "adamw", "8D"), table.seed == 1
    every, one, both = (
        _effect(name, _diverged(variants, lost))
        for lost in (tested, tested & one_seed, (tested | _rows(table, "adamw", "32")) & one_seed)
    )
    assert every is not None and one is not None and both is not None
    assert (every.n, every.diverged, every.runs, judge(every, "open", 0.95).verdict) == (0, 2, 2, UNDECIDED)
    assert (one.n, one.diverged, one.runs) == (1, 1, 2)
    assert (both.n, both.diverged, both.runs, both.lost_peers) == (1, 0, 1, 1)


def test_after_cooldown_only_ends_of_equal_loss_are_compared(variants: Study) -> None:
    name = "muon-8l-error-at-equal-loss-after-cooldown"
    for factor, found in ((1.008, True), (0.992, True), (1.02, False), (0.98, False)):
        effect = _effect(name, _slower(variants, "muon", "8L", factor))
        assert (effect is not None) == found
    table = variants[0]
    one_seed = _slower(variants, "muon", "8L", 1.02, table.seed == 1)
    effect = _effect(name, one_seed)
    assert effect is not None and (effect.n, list(effect.units)) == (1, ["0"])


def test_at_a_constant_rate_the_decay_does_not_count(variants: Study) -> None:
    """Where errors under Muon-8L are higher at the end alone, equal losses before the decay show no difference."""
    table, documents = variants
    early = (table.phase == "stable") & _rows(table, "muon", "8L")
    same = set(table.index[early])
    twin = dict(
        zip(table.index[early], table.index[(table.phase == "stable") & _rows(table, "muon", "32")], strict=True)
    )
    lists = documents.set_index("row")
    nats = [
        lists.nats[twin[row]] if row in same else own for row, own in zip(documents.row, documents.nats, strict=True)
    ]
    late = table, documents.assign(nats=nats)
    for name, verdict in (
        ("muon-8l-error-at-equal-loss-at-constant-rate", "observed: no difference seen"),
        ("muon-8l-error-at-constant-rate", "observed: no difference seen"),
        ("muon-8l-error-at-equal-loss-after-cooldown", "observed: higher"),
        ("muon-8l-error", "observed: higher"),
    ):
        assert _verdict(name, late) == verdict


def test_seeds_are_compared_at_the_models_that_all_have(variants: Study) -> None:
    """One seed trained a second model, on which Muon-8L is 5 % behind."""
    table, documents = variants
    second = table[table.seed == 0].copy()
    copies = documents.set_index("row").loc[second.index].assign(row=np.arange(len(second)) + documents.row.max() + 1)
    names = {name: "large-" + second[name] for name in ("model", "trajectory", "family")}
    both = pd.concat([table, second.assign(**names).set_index(copies.row.to_numpy())]), pd.concat([documents, copies])
    slower = _slower(both, "muon", "8L", 1.05, both[0].model != "variants")
    # Of sums over documents, in percent: more models beside them may change the order in which they are added up.
    rounding = 100 * documents.tokens.iloc[0].size * np.finfo(np.float64).eps
    for name in ("muon-8l-trains-as-well", "muon-8l-error", "muon-8l-error-at-constant-rate"):
        effect, expected = _effect(name, slower), _effect(name, variants)
        assert effect is not None and expected is not None
        assert (effect.n, effect.uneven, expected.uneven) == (2, 1, 0)
        one, other = (judge(each, "equivalence", 0.95) for each in (effect, expected))
        assert (one.verdict, one.resampled) == (other.verdict, other.resampled)
        assert (one.effect, one.low, one.high) == pytest.approx((other.effect, other.low, other.high), 0, rounding)


def test_an_optimizer_without_beta2_is_paired_too(variants: Study) -> None:
    table, documents = variants
    sgd = table.assign(beta2=table.beta2.mask(table.optimizer == "muon"))
    assert _verdict("muon-8l-trains-as-well", (sgd, documents)) == SUPPORTED
    assert _effect("muon-8l-error", (sgd, documents)) is not None


def test_at_a_constant_rate_checkpoints_are_compared_after_equally_many_tokens(variants: Study) -> None:
    """Each form lacks checkpoints that the other has; where they have none in common, nothing is compared."""
    table, documents = variants
    millions = (table.tokens / 1e6).round().where(table.phase == "stable")
    for of_low, of_full, found in (((2,), (3,), True), ((1, 2), (3, 4), False)):
        low, full = (
            _rows(table, "muon", states) & millions.isin(absent) for states, absent in (("8L", of_low), ("32", of_full))
        )
        effect = _effect("muon-8l-error-at-constant-rate", (table[~(low | full)], documents))
        assert (effect is not None) == found


@pytest.mark.parametrize("states", ["32", "8L"])
def test_at_equal_loss_at_a_constant_rate_no_end_is_compared(states: str, variants: Study) -> None:
    """Even one whose loss is among those before the decay."""
    name = "muon-8l-error-at-equal-loss-at-constant-rate"
    raised = _slower(variants, "muon", states, 1.1, variants[0].final.astype(bool))
    effect, expected = _effect(name, raised), _effect(name, variants)
    assert effect is not None and expected is not None
    assert judge(effect, "open", 0.95) == judge(expected, "open", 0.95)
