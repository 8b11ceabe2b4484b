"""Each claim on data made to support it, to contradict it, and on noise."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.claims.evidence import FULL, Evidence, gather, measured
from coolbits.claims.names import CLAIMS
from coolbits.claims.registry import REGISTRY, claim
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, judge

SAMPLES, CONFIDENCE, SEED = 400, 0.95, 0
BATCH = 4096  # tokens a step of the synthetic study
OF_LOSSES = [name for name in CLAIMS if REGISTRY[name].table == "loss"]
DIRECTED = [name for name in OF_LOSSES if REGISTRY[name].form == "direction"]
OPEN = [name for name in OF_LOSSES if REGISTRY[name].form == "open"]
Study = tuple[pd.DataFrame, pd.DataFrame]


Of = dict[str, Evidence]


def _evidence(study: Study) -> Of:
    table, documents = study
    return {
        quantizer: gather(table[table.quantizer == quantizer], documents, SAMPLES, SEED)
        for quantizer in ("gptq-w3", FULL)
    }


def _effect(name: str, evidence: Of) -> Effect | None:
    return REGISTRY[name].measure(evidence[FULL if REGISTRY[name].full_precision else "gptq-w3"])


def _values(name: str, evidence: Of) -> dict[str, float]:
    """Return the effect of each unit."""
    effect = _effect(name, evidence)
    assert effect is not None, f"{name} found no rows"
    return {unit: float(values[0]) for unit, values in effect.units.items()}


def _verdict(name: str, evidence: Of) -> str:
    effect = _effect(name, evidence)
    assert effect is not None, f"{name} found no rows"
    return judge(effect, REGISTRY[name].form, CONFIDENCE).verdict


@pytest.fixture(scope="module", params=[1, 3], ids=["one seed", "three seeds"])
def seeds(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def supporting(study: Callable[..., Study], seeds: int) -> Of:
    return _evidence(study(1.0, seeds))


@pytest.fixture(scope="module")
def reversed_(study: Callable[..., Study], seeds: int) -> Of:
    return _evidence(study(-1.0, seeds))


@pytest.fixture(scope="module")
def noisy(study: Callable[..., Study]) -> Of:
    return _evidence(study(0.0, 3, model_noise=0.3, document_noise=1.0))


@pytest.mark.parametrize("name", DIRECTED)
def test_supported_by_data_made_to_support_it(name: str, supporting: Of) -> None:
    assert _verdict(name, supporting) == SUPPORTED


@pytest.mark.parametrize("name", DIRECTED)
def test_contradicted_by_the_reverse(name: str, reversed_: Of) -> None:
    assert _verdict(name, reversed_) == CONTRADICTED


@pytest.mark.parametrize("name", DIRECTED)
def test_undecided_on_noise(name: str, noisy: Of) -> None:
    assert _verdict(name, noisy) == UNDECIDED


@pytest.mark.parametrize("name", OPEN)
def test_open_questions_report_what_was_observed(name: str, supporting: Of, reversed_: Of) -> None:
    assert _verdict(name, supporting) == "observed: higher"
    assert _verdict(name, reversed_) == "observed: lower"


@pytest.mark.parametrize("name", OPEN)
def test_open_questions_see_no_difference_in_noise(name: str, noisy: Of) -> None:
    assert _verdict(name, noisy) == "observed: no difference seen"


def test_equivalence_holds_within_the_margin_only(study: Callable[..., Study]) -> None:
    table, documents = study(1.0)
    assert _verdict("adamc-equals-adamw", _evidence((table, documents))) == SUPPORTED
    adamc = set(table.index[table.optimizer == "adamc"])
    raised = [
        base * 1.2 if row in adamc else nats
        for row, nats, base in zip(documents.row, documents.nats, documents.base_nats, strict=True)
    ]
    assert _verdict("adamc-equals-adamw", _evidence((table, documents.assign(nats=raised)))) == CONTRADICTED
    assert _verdict("adamc-equals-adamw", _evidence(study(0.0, document_noise=2.0))) == UNDECIDED


def _with_errors(study: Study, errors: pd.Series) -> Study:
    """Return the study with these errors of the quantized models, in percent, the same on every document."""
    table, documents = study
    own = errors.where(table.quantizer != "none", 0.0).loc[documents.row]
    nats = [base * (1 + error / 100) for base, error in zip(documents.base_nats, own, strict=True)]
    return table, documents.assign(nats=nats)


def _doublings(table: pd.DataFrame) -> pd.Series:
    return np.log2(table.tokens.astype(float) / 1e6)


@pytest.mark.parametrize("name", ["flat-while-constant", "decay-not-tokens"])
def test_errors_that_fall_with_tokens_are_neither_flat_nor_the_same(name: str, study: Callable[..., Study]) -> None:
    tables = study(1.0, 3)
    assert _verdict(name, _evidence(_with_errors(tables, 20 - 2 * _doublings(tables[0])))) == CONTRADICTED


def test_what_cooldowns_add_is_held_against_what_tokens_do(study: Callable[..., Study]) -> None:
    """Errors grow by a point with each doubling of the tokens, and by two more in a cooldown.

    Cooldowns go from 2M to 3M tokens, from 4M to 5M and from 8M to 9M.
    """
    tables = study(1.0, 1)
    errors = 6 + _doublings(tables[0]) + 2.0 * (tables[0].schedule == "cooldown")
    evidence = _evidence(_with_errors(tables, errors))
    drift = np.mean(np.log2([3 / 2, 5 / 4, 9 / 8]))
    for name, size in {
        "decay-raises-error": 2 + drift,
        "decay-raises-error-at-equal-tokens": 2.0,
        "flat-while-constant": 2 + drift - 2 * drift,
        "decay-not-tokens": 2 + drift - np.log2(9 / 3),
    }.items():
        assert _values(name, evidence) == {"0": pytest.approx(size, abs=0.01)}


def test_an_effect_has_the_size_it_was_given(supporting: Of) -> None:
    effects = {name: _effect(name, supporting) for name in OF_LOSSES}
    sizes = {name: judge(effect, "direction", CONFIDENCE).effect for name, effect in effects.items() if effect}
    assert sizes["decay-raises-error"] == pytest.approx(2.0, abs=0.2)
    assert sizes["decay-lowers-loss"] == pytest.approx(0.1, abs=0.01)
    assert sizes["wsd-vs-cosine"] == pytest.approx(1.5, abs=0.2)
    assert sizes["higher-rate-lowers-error"] == pytest.approx(3.0, abs=0.3)
    assert sizes["averaging-lowers-error"] == pytest.approx(4.0, abs=0.2)
    assert sizes["decay-beats-averaging-at-full-precision"] == pytest.approx(0.05, abs=0.01)
    for name in (*OPEN, "larger-weight-decay-lowers-error", "higher-rate-lowers-error-at-equal-loss"):
        assert sizes[name] == pytest.approx(1.5, abs=0.2)


def test_a_study_without_the_rows_gives_no_effect(study: Callable[..., Study]) -> None:
    table, documents = study(1.0)
    trunk_only = _evidence((table[table.schedule == "constant"], documents))
    assert [name for name in OF_LOSSES if _effect(name, trunk_only) is not None] == []


def _diverged(study: Study, lost: pd.Series) -> Study:
    """Make the models of the rows `lost` diverge."""
    table, documents = study[0].copy(), study[1]
    table.loc[lost, "outcome"] = "diverged"
    table.loc[lost, ["loss", "base_loss", "relative_error"]] = float("nan")
    return table, documents[~documents.row.isin(table.index[lost])]


@pytest.mark.parametrize("way", ["", "-at-equal-loss-after-cooldown", "-at-equal-loss-at-constant-rate"])
def test_runs_of_muon_and_adamw_that_diverged_are_counted(way: str, study: Callable[..., Study]) -> None:
    """Where all of Muon's did, the study has rows all the same, and nothing is decided."""
    name, tables = f"muon-vs-adamw{way}", study(1.0)
    table = tables[0]
    muon, micro = table.optimizer == "muon", table.model == "micro"
    every = _evidence(_diverged(tables, muon))
    effect = _effect(name, every)
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (0, 3, 3)
    assert judge(effect, "open", CONFIDENCE).verdict == UNDECIDED
    assert _verdict("decay-raises-error", every) == SUPPORTED
    adamw = (table.optimizer == "adamw") & (table.seed == 2)
    effect = _effect(name, _evidence(_diverged(tables, micro & (muon & (table.seed == 1) | adamw))))
    assert effect is not None and list(effect.units) == ["0"]
    assert (effect.diverged, effect.runs, effect.lost_peers) == (1, 2, 1)


def test_adamc_that_diverged_where_adamw_did_not_is_no_equal(study: Callable[..., Study]) -> None:
    tables = study(1.0)
    lost = _diverged(tables, (tables[0].optimizer == "adamc") & (tables[0].seed == 1))
    effect = _effect("adamc-equals-adamw", _evidence(lost))
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (2, 1, 3)
    assert _verdict("adamc-equals-adamw", _evidence(lost)) == CONTRADICTED


def test_of_settings_with_equally_much_to_compare_the_one_with_most_runs_is_taken(study: Callable[..., Study]) -> None:
    """And not the one whose name comes first."""
    table, documents = study(1.0)
    first = table.assign(model=table.model.replace("variants", "a"))
    few = first[(first.model != "a") | (first.seed == 0)]
    effect = _effect("muon-vs-adamw", _evidence((few, documents)))
    assert effect is not None and len(effect.units) == 3


def test_decays_of_other_lengths_are_not_compared(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    rates = ["higher-rate-lowers-error", "larger-weight-decay-lowers-error", "adamc-equals-adamw", "muon-vs-adamw"]
    assert all(_effect(name, _evidence((table, documents))) for name in rates)
    # A length of its own for each arm: what is left alike are the decays of the trunk's branches.
    arms = table.decay_tokens.notna() & (table.schedule == "wsd")
    own = table.decay_tokens + 50_000 * (1 + table.groupby("trajectory").ngroup())
    apart = _evidence((table.assign(decay_tokens=table.decay_tokens.mask(arms, own)), documents))
    assert [name for name in rates if _effect(name, apart)] == []
    assert _verdict("decay-raises-error", apart) == SUPPORTED


def test_states_of_other_precision_are_not_compared(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    assert _effect("muon-vs-adamw", _evidence((table[table.states != "8L"], documents)))
    low = table.assign(states=table.states.mask(table.optimizer == "muon", "8L"))
    assert _effect("muon-vs-adamw", _evidence((low, documents))) is None


def test_checkpoints_of_a_constant_rate_are_not_compared_with_decayed_ones(study: Callable[..., Study]) -> None:
    """Where Muon's loss at the end is that of AdamW before the decay, no two models are alike in loss and phase."""
    table, documents = study(1.0, 2)
    ends = (table.optimizer == "muon") & (table.states == "32") & table.final
    raised = set(table.index[ends])
    losses = table.base_loss.mask(ends, table.base_loss + 0.1)
    nats = [
        base + 0.1 * tokens if row in raised else base
        for row, tokens, base in zip(documents.row, documents.tokens, documents.base_nats, strict=True)
    ]
    evidence = _evidence((table.assign(base_loss=losses), documents.assign(base_nats=nats)))
    assert _effect("muon-vs-adamw-at-equal-loss-after-cooldown", evidence) is None
    effect = _effect("muon-vs-adamw-at-equal-loss-at-constant-rate", evidence)
    assert effect is not None and judge(effect, "open", CONFIDENCE).effect == pytest.approx(1.5, abs=0.2)


def test_the_quantized_models_behind_an_effect_are_known(study: Callable[..., Study]) -> None:
    """Each once, though a cooldown is asked for at its end and where it left the trunk; of losses there are none."""
    evidence = _evidence(study(1.0, 2))["gptq-w3"]
    _, behind = measured(REGISTRY["decay-raises-error"].measure, evidence)
    assert sorted(behind.tokens.div(BATCH).round().unique()) == [488, 732, 977, 1221, 1953, 2197]
    assert len(behind) == 2 * 6 and set(behind.trajectory) == {
        f"{name}-s{seed}" for seed in (0, 1) for name in ("trunk", "branch2", "branch4", "branch8")
    }
    _, behind = measured(REGISTRY["decay-lowers-loss"].measure, evidence)
    assert behind.empty


def test_an_unknown_claim_is_refused_by_name() -> None:
    with pytest.raises(CoolbitsError, match=r"no claim-like.*decay-raises-error"):
        claim("no claim-like")


def test_rows_without_documents_are_refused(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    with pytest.raises(CoolbitsError, match="no documents of row 0"):
        _evidence((table, documents.iloc[1:]))


def _with_a_long_window(study: Study) -> Study:
    """Return the study with a second LAWA, 0.05 nats behind the first, that has averages late in training alone."""
    table, documents = study
    late = table.index[(table.average == "lawa") & (table.tokens > 7_000_000)]
    loss = table.base_loss[late] + 0.05
    rows = table.loc[late].assign(run="lawa20", window=20, base_loss=loss)
    own = documents[documents.row.isin(late)]
    nats = [base + 0.05 * tokens for base, tokens in zip(own.base_nats, own.tokens, strict=True)]
    own = own.assign(row=len(table) + np.arange(len(own)), base_nats=nats)
    both = pd.concat([table, rows], ignore_index=True).astype(table.dtypes)
    return both, pd.concat([documents, own], ignore_index=True)


def test_windows_are_chosen_beside_each_other_and_not_by_how_late_they_are(study: Callable[..., Study]) -> None:
    """A long window has no averages early on, where losses are high, and would have the lower mean for that alone."""
    one = study(1.0, 2)
    both = _with_a_long_window(one)
    for name in ("averaging-lowers-error", "averaging-beats-decay-at-low-bits"):
        effect, alone = (_effect(name, _evidence(tables)) for tables in (both, one))
        assert effect is not None and alone is not None
        assert effect.n == alone.n == 2 * 3
        assert _values(name, _evidence(both)) == _values(name, _evidence(one))


def test_a_drift_is_fitted_to_three_checkpoints_at_least(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    for kept, found in (((2, 4, 8), True), ((2, 8), False)):
        trunk = (table.source == "checkpoint") & (table.schedule == "constant")
        fewer = table[~trunk | (table.tokens / 1e6).round(1).isin(kept)]
        effect = _effect("flat-while-constant", _evidence((fewer, documents)))
        assert (effect is not None) == found


def test_an_average_lies_between_the_branch_and_the_end_and_the_latest_counts(study: Callable[..., Study]) -> None:
    """Others, a hundred steps before and after, have an error five points higher."""
    table, documents = study(1.0, 1)
    lawa = table[table.average == "lawa"]
    rows = pd.concat([lawa.assign(tokens=lawa.tokens + BATCH * n, step=lawa.step + n) for n in (-100, 100)])
    own = documents.set_index("row").loc[rows.index]
    own = own.assign(nats=own.nats + 0.05 * own.base_nats, row=len(table) + np.arange(len(own)))
    every = pd.concat([table, rows], ignore_index=True).astype(table.dtypes)
    both = every, pd.concat([documents, own], ignore_index=True)
    name = "averaging-lowers-error"
    assert _values(name, _evidence(both)) == _values(name, _evidence((table, documents)))
    early = table[(table.average != "lawa").fillna(True) | (table.tokens < 6_000_000)]
    effect = _effect(name, _evidence((early, documents)))
    assert effect is not None and effect.n == 2  # what was averaged before the third branch is no match of its end


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("higher-rate-lowers-error", "peak_lr", (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
        ("higher-rate-lowers-error-at-equal-loss", "peak_lr", (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
        ("larger-weight-decay-lowers-error", "weight_decay", (0.0, 0.1, 0.2)),
    ],
)
@pytest.mark.parametrize("other", [{"optimizer": "muon"}, {"states": "8L"}])
def test_a_sweep_of_another_variant_is_not_the_papers(
    name: str, column: str, values: tuple[float, ...], other: dict[str, str], study: Callable[..., Study]
) -> None:
    """Paper A speaks of AdamW; a longer sweep of Muon, or of 8-bit states, is judged where AdamW was not swept."""
    table, documents = study(1.0, 1)
    again = [table[table.trajectory.str.startswith("muon-s0") | table.trajectory.str.startswith("muon-end")]] * len(
        values
    )
    swept = [
        rows.assign(
            **{column: value, "model": "micro"} | other,
            trajectory=rows.trajectory + f"-{value}",
            family=rows.family + f"-{value}",
        )
        for rows, value in zip(again, values, strict=True)
    ]
    every, numbered = (
        pd.concat([table, *swept]),
        pd.concat([documents.set_index("row").loc[rows.index] for rows in swept]),
    )
    numbered = numbered.assign(row=len(table) + np.arange(len(numbered))).reset_index(drop=True)
    both = every.reset_index(drop=True), pd.concat([documents, numbered], ignore_index=True)
    assert _values(name, _evidence(both)) == _values(name, _evidence((table, documents)))
    alone = both[0][both[0][column].ne(table[column].mode()[0]) & (both[0].index >= len(table))]
    assert _effect(name, _evidence((alone, both[1]))) is not None


def test_a_weight_decay_that_spoils_the_training_is_not_compared(study: Callable[..., Study]) -> None:
    """Its error may be low because the model has learned little: here 6 points lower, at a loss 20 % above the best."""
    table, documents = study(1.0, 1)
    spoiled = table[table.trajectory.str.startswith("little-decay")]
    own = documents.set_index("row").loc[spoiled.index]
    spoiled = spoiled.assign(
        weight_decay=33.0,
        base_loss=1.2 * spoiled.base_loss,
        trajectory=spoiled.trajectory + "-spoiled",
        family=spoiled.family + "-spoiled",
    )
    own = own.assign(row=len(table) + np.arange(len(own)), nats=own.base_nats).reset_index(drop=True)
    both = pd.concat([table, spoiled], ignore_index=True), pd.concat([documents, own], ignore_index=True)
    name = "larger-weight-decay-lowers-error"
    assert _values(name, _evidence(both)) == _values(name, _evidence((table, documents)))
    one = both[0][both[0].weight_decay != 0.01]
    assert _effect(name, _evidence((one, both[1]))) is None


def test_what_ends_within_five_percent_of_the_best_loss_is_well_trained(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    for name, stem, kept in (
        ("higher-rate-lowers-error", "rate-high", 3),
        ("higher-rate-lowers-error-at-equal-loss", "rate-high", 3),
        ("larger-weight-decay-lowers-error", "little-decay", 1),
    ):
        own = table.trajectory.str.startswith(stem)
        for factor, n in ((1.04, kept), (1.06, kept - 1)):
            raised = table.assign(base_loss=table.base_loss.mask(own, factor * table.base_loss))
            effect = _effect(name, _evidence((raised, documents)))
            assert (effect.n if effect else 0) == n


def test_at_equal_loss_each_rate_is_compared_with_the_next_and_the_mean_is_taken(study: Callable[..., Study]) -> None:
    tables = study(1.0, 1)
    errors = tables[0].peak_lr.map({3e-3: 6.0, 1e-2: 5.0, 3e-2: 1.0})
    found = _values("higher-rate-lowers-error-at-equal-loss", _evidence(_with_errors(tables, errors)))
    assert found == {"0": pytest.approx((1.0 + 4.0) / 2)}


@pytest.mark.parametrize("name", ["higher-rate-lowers-error", "higher-rate-lowers-error-at-equal-loss"])
def test_a_rate_counts_once_a_seed_and_order(name: str, study: Callable[..., Study]) -> None:
    """A second run at one, alike in all that is compared, has no neighbour in the first and no more weight."""
    table, documents = study(1.0, 1)
    again = table[table.trajectory == "branch4-s0"]
    own = documents.set_index("row").loc[again.index]
    own = own.assign(nats=own.nats + 0.05 * own.base_nats, row=len(table) + np.arange(len(own)))
    both = pd.concat([table, again.assign(trajectory="twin-s0")], ignore_index=True).astype(table.dtypes)
    evidence = _evidence((both, pd.concat([documents, own], ignore_index=True)))
    effect = _effect(name, evidence)
    assert effect is not None and effect.n == 3
    assert _values(name, evidence) == _values(name, _evidence((table, documents)))


def test_what_is_counted_is_what_was_compared(study: Callable[..., Study]) -> None:
    """A seed that lacks a side of the comparison is no unit, and its rows do not count."""
    table, documents = study(1.0, 3)
    third = table.seed == 2
    for name, absent, n in (
        ("wsd-vs-cosine", table.schedule == "cosine", 2 * (3 + 3)),
        ("higher-rate-lowers-error", table.peak_lr != 1e-2, 2 * 3),
        ("decay-not-tokens", table.trajectory.isin(["branch4-s2", "branch8-s2"]), 2 * 3),
    ):
        left = table[~(third & absent)]
        effect = _effect(name, _evidence((left, documents)))
        assert effect is not None and set(effect.units) == {"0", "1"}
        assert effect.n == n


def test_a_soup_is_judged_against_what_was_averaged(study: Callable[..., Study]) -> None:
    """Not against as many others that are alike, be its own members in the table or not."""
    table, documents = study(1.0, 1)
    others = table.trajectory.isin(["soup0-s0", "soup1-s0"])
    lacking = table.assign(trajectory=table.trajectory.mask(others, table.trajectory + "-other"))
    assert _effect("soup-beats-ingredients", _evidence((lacking, documents))) is None
    _, behind = measured(REGISTRY["soup-beats-ingredients"].measure, _evidence((table, documents))["gptq-w3"])
    assert set(behind.trajectory) == {"soup-s0", "soup0-s0", "soup1-s0"}


def test_a_soup_is_held_against_the_best_of_its_ingredients_at_its_own_step(study: Callable[..., Study]) -> None:
    """Of two the second: the first is five points worse at the end, five better on the way.

    That two runs of the study share a checkpoint does not make it two ingredients.
    """
    table, documents = study(1.0, 1)
    places = table.index[table.trajectory == "soup0-s0"]
    halfway = table.loc[places].assign(tokens=6_500_000, step=1587, final=False)
    rows = pd.concat([halfway, table[table.trajectory == "soup1-s0"].assign(run="again")])
    own = documents.set_index("row").loc[rows.index]
    better = own.nats - 0.05 * own.base_nats
    own = own.assign(nats=own.nats.mask(own.index.isin(places), better), row=len(table) + np.arange(len(own)))
    worse = documents.nats + 0.05 * documents.base_nats
    nats = documents.nats.where(~documents.row.isin(places), worse)
    both = pd.concat([table, rows], ignore_index=True), pd.concat([documents.assign(nats=nats), own], ignore_index=True)
    errors = 100 * table[table.quantizer != "none"].set_index("trajectory").relative_error
    expected = errors["soup1-s0"] - errors["soup-s0"]
    assert _values("soup-beats-ingredients", _evidence(both)) == {"0": pytest.approx(expected)}


def test_soups_with_ingredients_of_one_seed_are_one_unit(study: Callable[..., Study]) -> None:
    """Of four soups three hang together, by an ingredient or a run of the same seed: two units, not four."""
    table, documents = study(1.0, 4)
    members = {"soup-s0": "soup0-s0 soup0-s1", "soup-s1": "soup0-s1 soup0-s2", "soup-s2": "soup0-s2 soup1-s2"}
    chained = table.assign(members=table.trajectory.map(members).fillna(table.members))
    effect = _effect("soup-beats-ingredients", _evidence((chained, documents)))
    assert effect is not None and (effect.n, set(effect.units)) == (4, {"0 1 2", "3"})


def test_ingredients_need_not_be_alike_in_what_the_soup_goes_over(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 1)
    soup, member = (table.trajectory == name for name in ("soup-s0", "soup0-s0"))
    peak_lr = table.peak_lr.mask(soup).mask(member, 2e-2)
    effect = _effect("soup-beats-ingredients", _evidence((table.assign(peak_lr=peak_lr), documents)))
    assert effect is not None and effect.n == 1


@pytest.mark.parametrize(
    "name",
    [
        *("flat-while-constant", "decay-not-tokens", "wsd-vs-cosine", "muon-vs-adamw"),
        *("higher-rate-lowers-error", "higher-rate-lowers-error-at-equal-loss"),
    ],
)
def test_orders_of_the_data_are_repeats_within_a_seed(name: str, study: Callable[..., Study]) -> None:
    """The second seed of a study counts as another order of the first one's data: one unit, the mean of both.

    In that order errors are higher and early checkpoints absent, which is no trend.
    """
    table, documents = study(1.0, 2, model_noise=0.5)
    second = table.seed == 1
    higher = set(table.index[second & (table.quantizer != "none")])
    nats = [
        own + 0.1 * base * (row in higher)
        for row, own, base in zip(documents.row, documents.nats, documents.base_nats, strict=True)
    ]
    early = table.trajectory.isin(["branch2-s1", "cosine2-s1"]) | (table.family == "trunk-s1") & (table.tokens < 3.5e6)
    # Of one seed alone, which lacks a budget, the soups' ingredients would be the most cooldowns.
    table, documents = table[~early & (table.model != "tiny")], documents.assign(nats=nats)
    alone = [_values(name, _evidence((table[table.seed == seed], documents)))[str(seed)] for seed in (0, 1)]
    both = _values(name, _evidence((table.assign(seed=0), documents)))
    assert list(both) == ["0"] and both["0"] == pytest.approx(np.mean(alone))


@pytest.mark.parametrize(
    "name",
    ["decay-raises-error", "decay-raises-error-at-equal-tokens", "flat-while-constant", "averaging-lowers-error"],
)
def test_seeds_are_compared_at_the_budgets_that_all_have(name: str, study: Callable[..., Study]) -> None:
    """That the effect is far larger at one which a seed lacks moves nothing; or that seed looks like no sibling."""
    table, documents = study(1.0, 3)
    larger = set(table.index[table.trajectory.str.startswith("branch8") & (table.quantizer != "none")])
    nats = [
        own + 0.1 * base * (row in larger)
        for row, own, base in zip(documents.row, documents.nats, documents.base_nats, strict=True)
    ]
    lacking = table[table.trajectory != "branch8-s2"]
    expected, effect = (_effect(name, _evidence((lacking, each))) for each in (documents, documents.assign(nats=nats)))
    assert effect is not None and expected is not None
    assert (len(effect.units), effect.n, effect.uneven) == (3, 6, 2)
    assert judge(effect, "direction", CONFIDENCE) == judge(expected, "direction", CONFIDENCE)


def test_rates_are_those_that_all_seeds_have(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 3)
    lacking = table[(table.seed != 2) | (table.peak_lr != 3e-2)]
    for name in ("higher-rate-lowers-error", "higher-rate-lowers-error-at-equal-loss"):
        effect = _effect(name, _evidence((lacking, documents)))
        assert effect is not None and (len(effect.units), effect.n, effect.uneven) == (3, 6, 2)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("decay-raises-error", "branch8-s2"),
        ("decay-lowers-loss", "branch8-s2"),
        ("flat-while-constant", "branch8-s2"),
        ("decay-not-tokens", "branch8-s2"),
        ("averaging-lowers-error", "branch8-s2"),
        ("wsd-vs-cosine", "cosine8-s2"),
        ("higher-rate-lowers-error", "rate-high-end-s2"),
        ("higher-rate-lowers-error-at-equal-loss", "rate-high-end-s2"),
        ("larger-weight-decay-lowers-error", "little-decay-end-s2"),
    ],
)
def test_runs_that_diverged_and_are_on_no_trial_are_counted(name: str, lost: str, study: Callable[..., Study]) -> None:
    """They decide nothing: what is left is compared."""
    tables = study(1.0, 3)
    whole, left = (_effect(name, _evidence(each)) for each in (tables, _diverged(tables, tables[0].trajectory == lost)))
    assert whole is not None and left is not None
    assert (whole.lost, left.lost, left.diverged, left.runs) == (0, 1, 0, 0)
    assert judge(left, "direction", CONFIDENCE).verdict == SUPPORTED and left.n < whole.n


@pytest.mark.parametrize(
    ("name", "stem", "column"),
    [
        ("higher-rate-lowers-error", "rate-high", "peak_lr"),
        ("higher-rate-lowers-error-at-equal-loss", "rate-high", "peak_lr"),
        ("larger-weight-decay-lowers-error", "little-decay", "weight_decay"),
    ],
)
def test_a_value_at_which_every_run_diverged_is_counted(
    name: str, stem: str, column: str, study: Callable[..., Study]
) -> None:
    """Though nothing at that value is compared."""
    table, documents = study(1.0, 2)
    hot = table[table.trajectory.str.startswith(stem)]
    names = {name: "hot-" + hot[name] for name in ("trajectory", "family")}
    both = pd.concat([table, hot.assign(**names | {column: 1.0})], ignore_index=True).astype(table.dtypes)
    tables = _diverged((both, documents), both.trajectory.str.startswith("hot-"))
    whole, left = (_effect(name, _evidence(each)) for each in ((table, documents), tables))
    assert whole is not None and left is not None
    assert (whole.lost, left.lost, left.n) == (0, 2, whole.n)


@pytest.mark.parametrize("name", ["flat-while-constant", "muon-vs-adamw-at-equal-loss-at-constant-rate"])
def test_at_a_constant_rate_the_warmup_does_not_count(name: str, study: Callable[..., Study]) -> None:
    """That errors are ten points higher in the warmup of a trunk, or of Muon, moves nothing."""
    table, documents = study(1.0, 1)
    first = (table.phase == "stable") & (table.tokens < 1.5e6)
    warming = table.assign(phase=table.phase.mask(first, "warmup"))
    own = first & ((table.family == "trunk-s0") | (table.optimizer == "muon")) & (table.quantizer != "none")
    nats = documents.nats + 0.1 * documents.base_nats * own.loc[documents.row].to_numpy()
    expected, found = (_values(name, _evidence((warming, each))) for each in (documents, documents.assign(nats=nats)))
    assert found == expected


@pytest.mark.parametrize("trunk", [lambda tokens: tokens < 8.5e6, lambda tokens: tokens > 3.5e6], ids=["short", "late"])
@pytest.mark.parametrize("name", ["decay-raises-error-at-equal-tokens", "decay-lowers-loss"])
def test_a_cooldown_that_ends_outside_its_trunk_has_nothing_beside_it(
    name: str, trunk: Callable[[pd.Series], pd.Series], study: Callable[..., Study]
) -> None:
    table, documents = study(1.0, 1)
    kept = table[(table.schedule != "constant") | (table.source != "checkpoint") | trunk(table.tokens)]
    effect = _effect(name, _evidence((kept, documents)))
    assert effect is not None and effect.n == 2


def test_models_that_quantization_broke_did_not_diverge(study: Callable[..., Study]) -> None:
    tables = study(1.0, 3)
    table, documents = tables
    broken = table.trajectory.isin(["branch8-s2", "muon-end-s1", "muon-32-end-s1"]) & (table.quantizer != "none")
    evidence = _evidence((table.assign(relative_error=table.relative_error.mask(broken)), documents))
    effect = _effect("decay-raises-error", evidence)
    assert effect is not None and (effect.n, effect.lost) == (6, 0)
    effect = _effect("muon-vs-adamw", evidence)
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (2, 0, 3)


def test_decays_of_one_length_are_held_against_cosines(study: Callable[..., Study]) -> None:
    """Two more cooldowns of the trunk, twice as long and of five points more error, are no part of the growth."""
    table, documents = study(1.0, 1)
    again = table[table.trajectory.isin(["branch4-s0", "branch8-s0"])]
    own = documents.set_index("row").loc[again.index]
    larger = 0.05 * own.base_nats.where(again.trajectory == "branch8-s0", 0.0)
    own = own.assign(nats=own.nats + larger, row=len(table) + np.arange(len(own)))
    longer = again.assign(trajectory="long-" + again.trajectory, decay_tokens=2 * again.decay_tokens)
    both = pd.concat([table, longer], ignore_index=True).astype(table.dtypes)
    evidence = _evidence((both, pd.concat([documents, own], ignore_index=True)))
    assert _values("wsd-vs-cosine", evidence) == _values("wsd-vs-cosine", _evidence((table, documents)))


def test_a_seed_with_one_cosine_has_no_growth_and_leaves_the_others_theirs(study: Callable[..., Study]) -> None:
    table, documents = study(1.0, 3)
    effect = _effect(
        "wsd-vs-cosine", _evidence((table[~table.trajectory.isin(["cosine4-s2", "cosine8-s2"])], documents))
    )
    assert effect is not None and set(effect.units) == {"0", "1"}
