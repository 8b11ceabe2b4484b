"""Claims on tasks: runs are scored by their mean accuracy, and their settings chosen by their loss."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from coolbits.claims.downstream import of_tasks
from coolbits.claims.evidence import Evidence
from coolbits.claims.registry import REGISTRY
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, Judgement, judge

NAME = "tasks-muon-8l-trains-as-well"
Frame = pd.DataFrame
Make = Callable[..., Frame]


@pytest.fixture(scope="module")
def losses(study: Callable[..., tuple[Frame, Frame]]) -> Frame:
    """The losses of the model that every variant trained, three seeds."""
    table, _ = study(1.0, 3)
    return table[table.model == "variants"].reset_index(drop=True)


def _effect(evidence: Evidence) -> Effect | None:
    return REGISTRY[NAME].measure(evidence)


def _judged(evidence: Evidence) -> Judgement:
    effect = _effect(evidence)
    assert effect is not None
    return judge(effect, REGISTRY[NAME].form, 0.95)


@pytest.mark.parametrize(
    ("worse", "verdict"), [(0.6, SUPPORTED), (-0.6, SUPPORTED), (1.0, UNDECIDED), (1.4, CONTRADICTED)]
)
def test_parity_holds_within_one_point_of_accuracy(worse: float, verdict: str, losses: Frame, tasks: Make) -> None:
    judgement = _judged(of_tasks(tasks(losses, worse), losses))
    assert (judgement.verdict, judgement.resampled) == (verdict, "nothing")
    assert judgement.effect == pytest.approx(worse)


def test_one_seed_decides_nothing(losses: Frame, tasks: Make) -> None:
    one = losses[losses.seed == 0]
    assert _judged(of_tasks(tasks(one, 0.0), one)).verdict == UNDECIDED


def test_a_task_counts_once_and_by_its_accuracy(losses: Frame, tasks: Make) -> None:
    table = tasks(losses)
    scores = 100 - of_tasks(table, losses).values["full"][:, 0]
    means = table[table.metric == "acc"].groupby("trajectory").value.mean()
    assert sorted(scores) == pytest.approx(sorted(100 * means))
    renamed = table.assign(metric=table.metric.where(table.task != "arc_easy", "acc_norm"))
    normalized = renamed.drop_duplicates(["trajectory", "task", "metric"], keep="last")
    assert (100 - of_tasks(normalized, losses).values["full"][:, 0]).max() == pytest.approx(100 * (0.1 + 0.42) / 2)


def test_the_setting_is_chosen_by_the_loss_not_by_the_accuracy(losses: Frame, tasks: Make) -> None:
    """At another rate Muon-8L answers better, and models worse: it does not count."""
    other = losses.assign(peak_lr=0.1, base_loss=losses.base_loss + 0.3, trajectory="hot-" + losses.trajectory)
    other = other.assign(family="hot-" + losses.family)[(losses.optimizer == "muon") & (losses.states == "8L")]
    both = pd.concat([losses, other], ignore_index=True)
    table = pd.concat([tasks(losses, 0.6), tasks(other, -9.0)], ignore_index=True)
    assert _judged(of_tasks(table, both)).effect == pytest.approx(0.6)


def test_quantized_models_and_those_on_the_way_do_not_count(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    quantized = table.assign(quantizer="gptq-w3", value=0.1)
    early = table.assign(final=False, value=0.1, step=1)
    average = table.assign(source="average", average="lawa", value=0.1)
    more = pd.concat([quantized, early, average, table], ignore_index=True)
    assert _judged(of_tasks(more, losses)).effect == pytest.approx(0.6)


def test_a_run_that_diverged_contradicts(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.0)
    lost = (table.optimizer == "muon") & (table.states == "8L") & (table.seed == 1)
    table = table.assign(outcome=table.outcome.mask(lost, "diverged"), value=table.value.mask(lost, np.nan))
    evidence = of_tasks(table, losses)
    effect = _effect(evidence)
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (2, 1, 3)
    assert evidence.broken == 0
    assert _judged(of_tasks(table, losses)).verdict == CONTRADICTED


def test_an_exact_match_counts_whatever_picked_the_answer(losses: Frame, tasks: Make) -> None:
    """As of `gsm8k`, where two filters look for the number: the first in the alphabet counts, as in figures."""
    table = tasks(losses, 0.6)
    table = table[table.metric == "acc"].assign(metric="exact_match,flexible-extract")
    strict = table.assign(metric="exact_match,strict-match", value=0.1)
    assert _judged(of_tasks(pd.concat([strict, table], ignore_index=True), losses)).effect == pytest.approx(0.6)
    assert _effect(of_tasks(table.assign(metric="accidents"), losses)) is None


def test_models_without_a_finite_score_are_counted(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    broken = (table.optimizer == "muon") & (table.states == "8L") & (table.seed == 1)
    evidence = of_tasks(table.assign(value=table.value.mask(broken)), losses)
    effect = _effect(evidence)
    assert effect is not None and (effect.n, evidence.broken) == (2, 1)


def test_without_losses_of_the_models_there_is_nothing_to_choose_by(losses: Frame, tasks: Make) -> None:
    unknown = losses.assign(trajectory="other-" + losses.trajectory)
    assert _effect(of_tasks(tasks(losses), unknown)) is None


def _hard(table: Frame, asked: pd.Series) -> Frame:
    """A second evaluation, limited to the rows `asked`, whose task all models find hard."""
    hard = table[asked & (table.task == "arc_easy") & (table.metric == "acc")]
    return pd.concat(
        [table.assign(measure="tasks"), hard.assign(measure="hard", task="mmlu", value=0.25)], ignore_index=True
    )


def test_a_task_that_one_form_was_never_asked_counts_for_none(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    limited = _hard(table, table.states == "32")
    assert _judged(of_tasks(limited, losses)).effect == pytest.approx(0.6)
    asked_all = _hard(table, table.states != "")
    assert _judged(of_tasks(asked_all, losses)).effect == pytest.approx(0.6 * 2 / 3)


def test_other_optimizers_and_trunks_do_not_limit_the_tasks(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    trunk = table.assign(schedule="constant", phase="stable", trajectory="trunk-" + table.trajectory)
    more = _hard(pd.concat([table, trunk], ignore_index=True), table.optimizer == "muon")
    assert _judged(of_tasks(more, losses)).effect == pytest.approx(0.6 * 2 / 3)


def test_runs_of_another_length_do_not_limit_the_tasks(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    longer = table.assign(trajectory="long-" + table.trajectory, tokens=2 * table.tokens, step=2 * table.step)
    more = _hard(pd.concat([table, longer], ignore_index=True), pd.Series([True, False]).repeat(len(table)).to_numpy())
    assert _judged(of_tasks(more, losses)).effect == pytest.approx(0.6 * 2 / 3)


def test_forms_that_were_asked_different_tasks_are_not_compared(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    assert _effect(of_tasks(table[(table.states == "32") == (table.task == "arc_easy")], losses)) is None


def test_a_task_without_a_finite_score_of_one_run_counts_for_none(losses: Frame, tasks: Make) -> None:
    """The run has another task to be compared by, one number, and is not without any."""
    table = tasks(losses, 0.6)
    table = table[table.metric == "acc"]
    broken = (table.optimizer == "muon") & (table.states == "8L") & (table.seed == 1) & (table.task == "arc_easy")
    evidence = of_tasks(table.assign(value=table.value.mask(broken)), losses)
    effect = _effect(evidence)
    assert effect is not None and (effect.n, evidence.broken) == (3, 0)
    assert _judged(evidence).effect == pytest.approx(0.6)


def test_a_task_asked_in_two_evaluations_is_two(losses: Frame, tasks: Make) -> None:
    """The second, with other shots, was limited to 32-bit states: its number does not stand for that of the first."""
    table = tasks(losses, 0.6).assign(measure="tasks")
    again = table[(table.states == "32") & (table.task == "arc_easy")].assign(measure="shots", value=0.25)
    assert _judged(of_tasks(pd.concat([again, table], ignore_index=True), losses)).effect == pytest.approx(0.6)


def test_other_models_do_not_limit_the_tasks(losses: Frame, tasks: Make) -> None:
    table = tasks(losses, 0.6)
    larger = table.assign(model="larger", trajectory="larger-" + table.trajectory, family="larger-" + table.family)
    both = pd.concat([table, larger], ignore_index=True)
    assert _judged(of_tasks(_hard(both, both.model != "larger"), losses)).effect == pytest.approx(0.6 * 2 / 3)


def test_the_loss_that_chooses_the_setting_is_of_the_measure_that_most_models_have(losses: Frame, tasks: Make) -> None:
    """On other documents, which few models were scored on, the hot rate looks better."""
    few = (losses.optimizer == "muon") & (losses.states == "8L")
    hot = losses[few].assign(peak_lr=0.1, base_loss=losses.base_loss + 0.3, trajectory="hot-" + losses.trajectory)
    hot = hot.assign(family="hot-" + hot.family)
    both = pd.concat([losses, hot], ignore_index=True).assign(measure="whole")
    other = hot.assign(measure="few", base_loss=1.0)
    table = pd.concat([tasks(losses, 0.6), tasks(hot, -9.0)], ignore_index=True)
    assert _judged(of_tasks(table, pd.concat([other, both], ignore_index=True))).effect == pytest.approx(0.6)
