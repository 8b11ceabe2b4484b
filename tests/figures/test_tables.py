"""Tables: what they hold, against the bootstrap of each row; what they refuse."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.artifacts.store import Store
from coolbits.figures import tables
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS, Row, Table

SAMPLES = 200
DRAWN = {"samples": SAMPLES, "confidence": 0.95, "seed": 3}
Bootstrap = Callable[..., tuple[float, float, float]]
COLUMNS = dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS) | {"run": "trunk", "model": "micro", "optimizer": "adamw"}
COLUMNS |= {"tokens": 4096, "step": 1, "source": "checkpoint", "quantizer": "none", "final": True, "peak_lr": 0.01}
TOKENS = np.random.default_rng(0).integers(5, 90, 40)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Slice("test", {}))


def _artifact(
    store: Store,
    kind: str,
    label: str,
    files: dict[str, pd.DataFrame | str],
    summary: dict[str, Any],
    measure: Any = None,
    **parents: Node,
) -> Node:
    recipe = {"label": label} | ({"measure": measure} if measure else {})
    node = make_node(kind, label, recipe, {role: parent.ref for role, parent in parents.items()})

    def build(directory: Path) -> dict[str, Any]:
        for name, file in files.items():
            if isinstance(file, str):
                (directory / name).write_text(file)
            else:
                file.to_parquet(directory / name, index=False)
        return summary

    store.ensure(node, build)
    return node


def _checkpoint(
    store: Store,
    trajectory: str,
    step: int,
    files: dict[str, pd.DataFrame],
    diverged: int | None = None,
    **parents: Node,
) -> Node:
    """Make a checkpoint; `diverged` is the step since which its trajectory had, as far as it knows."""
    recipe, refs = {"step": step}, {role: parent.ref for role, parent in parents.items()}
    node = make_node("checkpoint", f"{trajectory}/step_{step:07d}", recipe, refs)

    def build(directory: Path) -> dict[str, Any]:
        for name, frame in files.items():
            frame.to_parquet(directory / name, index=False)
        return {} if diverged is None else {"outcome": "diverged", "diverged_step": diverged}

    store.ensure(node, build)
    return node


def _losses(store: Store, label: str, seed: int, shift: float = 0.0, tokens: np.ndarray = TOKENS, **more: Any) -> Node:
    nats = tokens * (2.5 + shift + np.random.default_rng(seed).normal(0, 0.1, len(tokens)))
    frame = pd.DataFrame({"document": range(len(tokens)), "tokens": tokens, "nats": nats})
    return _artifact(store, "evaluation", label, {"documents.parquet": frame}, {"bits_per_byte": 1.5}, **more)


def _samples(store: Store, label: str, seed: int, share: float, **parents: Node) -> Node:
    generator = np.random.default_rng(seed)
    frames = [
        pd.DataFrame({"task": task, "sample": range(count), "metric": metric, "value": generator.random(count) < share})
        for task, metric, count in (("cloze", "acc", 60), ("cloze", "bits", 60), ("choice", "acc", 35))
    ]
    frame = pd.concat(frames).astype({"value": "float64"})
    requests = {"cloze": {"made": 60, "cut": 12}, "choice": {"made": 140, "cut": 0}}
    return _artifact(store, "evaluation", label, {"samples.parquet": frame}, {"requests": requests}, **parents)


def _table(store: Store, content: str, rows: list[tuple[Node, Node | None, dict[str, Any]]]) -> pd.DataFrame:
    """Run the stage on one table and read it back."""
    parents: dict[str, Ref] = {}
    described = []
    for number, (node, base, columns) in enumerate(rows):
        parents[f"row.{number}"] = node.ref
        if base:
            parents[f"base.{number}"] = base.ref
        described.append(
            Row(evaluation=f"row.{number}", base=f"base.{number}" if base else None, columns=COLUMNS | columns)
        )
    recipe = Table.model_validate({"content": content, "rows": described, "bootstrap_samples": SAMPLES, "seed": 3})
    node = make_node("table", content, recipe.identity(), parents)
    assert tables.run(Job("table", "table", (node,)), store) == 1
    return pd.read_parquet(node.directory(store.root) / "table.parquet")


def _nats(store: Store, node: Node) -> pd.Series:
    return pd.read_parquet(node.directory(store.root) / "documents.parquet").nats


def test_losses_and_intervals_are_those_of_the_paired_bootstrap(store: Store, bootstrap: Bootstrap) -> None:
    base, quantized = _losses(store, "base", 1), _losses(store, "quantized", 2, shift=0.1)
    full, row = _table(
        store, "loss", [(base, None, {}), (quantized, base, {"quantizer": "gptq-w3", "bits": 3})]
    ).itertuples()
    columns = _nats(store, base), _nats(store, quantized), TOKENS
    ratio = bootstrap(lambda base, quantized, _: quantized.sum() / base.sum() - 1, *columns, **DRAWN)
    difference = bootstrap(lambda base, quantized, tokens: (quantized - base).sum() / tokens.sum(), *columns, **DRAWN)
    assert row.loss == pytest.approx(_nats(store, quantized).sum() / TOKENS.sum())
    assert row.base_loss == pytest.approx(full.loss)
    assert (row.relative_error, row.relative_low, row.relative_high) == pytest.approx(ratio)
    assert (row.absolute_error, row.absolute_low, row.absolute_high) == pytest.approx(difference)
    assert (row.scored_tokens, row.documents, row.bits_per_byte) == (TOKENS.sum(), len(TOKENS), 1.5)
    assert (full.relative_error, full.relative_low, full.relative_high) == (0, 0, 0)


def test_a_loss_table_keeps_the_documents_of_each_row(store: Store) -> None:
    base, quantized = _losses(store, "base", 1), _losses(store, "quantized", 2)
    _table(store, "loss", [(base, None, {}), (quantized, base, {})])
    (path,) = store.root.glob("table/*/documents.parquet")
    documents = pd.read_parquet(path)
    assert documents.row.tolist() == [0, 1]
    np.testing.assert_array_equal(documents.nats[1], _nats(store, quantized))
    np.testing.assert_array_equal(documents.base_nats[1], _nats(store, base))


def test_models_of_other_tokenizers_are_scored_on_other_documents(store: Store) -> None:
    many, few = _losses(store, "many", 1), _losses(store, "few", 2, tokens=TOKENS[:9])
    rows = _table(store, "loss", [(many, None, {}), (few, None, {})])
    assert rows.documents.tolist() == [len(TOKENS), 9]
    assert rows.loss.tolist() == pytest.approx(
        [_nats(store, node).sum() / tokens.sum() for node, tokens in ((many, TOKENS), (few, TOKENS[:9]))]
    )


def test_evaluations_that_measure_alike_are_one_measure(store: Store) -> None:
    """It goes by the name of the first: evaluations of other runs or quantizers compare, of other documents not."""
    short, long = {"kind": "loss", "windows": 8}, {"kind": "loss", "windows": 64}
    measures = {"loss": short, "loss-4-bit": short, "validation": long}
    rows = [
        (_losses(store, name, 1, measure=measure), None, {"evaluation": name}) for name, measure in measures.items()
    ]
    table = _table(store, "loss", rows)
    assert table.evaluation.tolist() == list(measures)
    assert table.measure.tolist() == ["loss", "loss", "validation"]


def test_fallbacks_of_the_quantized_model_are_in_the_row(store: Store) -> None:
    base = _losses(store, "base", 1)
    quantized = _artifact(store, "quantized", "q", {}, {"modules": 8, "fallbacks": 2})
    table = _table(store, "loss", [(_losses(store, "e", 2, quantized=quantized), base, {})])
    assert table.fallbacks.tolist() == [2]


def test_a_diverged_model_has_a_row_without_numbers(store: Store) -> None:
    base = _losses(store, "base", 1)
    lost = _artifact(store, "evaluation", "lost", {}, {"outcome": "diverged", "diverged_step": 70})
    table = _table(store, "loss", [(base, None, {}), (lost, lost, {"quantizer": "rtn"})])
    assert table.outcome.tolist() == ["complete", "diverged"]
    assert table.diverged_step[1] == 70
    assert table.loc[1, ["loss", "relative_error", "relative_low"]].isna().all()
    only = _table(store, "loss", [(lost, None, {})])
    assert only.loss.isna().all() and "relative_high" in only


def _lost(store: Store, label: str, model: Node) -> Node:
    """Make the evaluation of a model whose manifest says since when it diverged."""
    return _artifact(store, "evaluation", label, {}, {"outcome": "diverged", "diverged_step": 8}, model=model)


def test_what_was_kept_before_a_divergence_was_noticed_has_diverged_too(store: Store) -> None:
    before, since, end = (_checkpoint(store, "hot", step, {}) for step in (5, 8, 15))
    noticed = _checkpoint(store, "hot", 20, {}, diverged=8)
    other = _checkpoint(store, "cool", 15, {})
    models = (before, since, end, other)
    evaluations = [_losses(store, f"e{number}", number, model=model) for number, model in enumerate(models)]
    rows = [(evaluation, None, {}) for evaluation in [*evaluations, _lost(store, "end", noticed)]]
    table = _table(store, "loss", rows)
    assert table.outcome.tolist() == ["complete", "diverged", "diverged", "complete", "diverged"]
    assert table.diverged_step.fillna(0).tolist() == [0, 8, 8, 0, 8]
    assert table[["loss", "base_loss", "relative_error", "bits_per_byte"]].notna().all(axis=1).tolist() == [
        *(True, False, False, True, False)
    ]
    (path,) = store.root.glob("table/*/documents.parquet")
    assert pd.read_parquet(path).row.tolist() == [0, 3]


def test_what_was_made_of_a_model_that_had_diverged_has_diverged(store: Store) -> None:
    early, late = (_checkpoint(store, "trunk", step, {}) for step in (5, 15))
    noticed = _checkpoint(store, "trunk", 20, {}, diverged=8)
    branches = [_checkpoint(store, f"branch{start.recipe['step']}", 30, {}, start=start) for start in (early, late)]
    average = _artifact(store, "average", "lawa", {}, {}, **{"member.0": early, "member.1": late})
    quantized = _artifact(store, "quantized", "q", {}, {"fallbacks": 2}, model=late)
    rows = [(_losses(store, f"e{n}", n, model=model), None, {}) for n, model in enumerate([*branches, average])]
    base = _losses(store, "base", 3, model=late)
    rows.append((_losses(store, "e4", 4, model=late, quantized=quantized), base, {}))
    rows.append((_losses(store, "e5", 5, quantized=quantized), base, {}))
    table = _table(store, "loss", [*rows, (_lost(store, "end", noticed), None, {})])
    assert table.outcome.tolist() == ["complete", *["diverged"] * 5]
    assert table.fallbacks.tolist() == [0, 0, 0, 2, 2, 0]


def test_a_model_has_diverged_since_the_first_of_what_is_behind_it_had(store: Store) -> None:
    """A branch that diverged on its own, from a trunk that had already; two checkpoints of it disagree since when."""
    fork = _checkpoint(store, "trunk", 15, {})
    early, late = (_checkpoint(store, "trunk", step, {}, diverged=since) for step, since in ((20, 8), (25, 12)))
    end, noticed = _checkpoint(store, "branch", 18, {}, start=fork), _checkpoint(store, "branch", 30, {}, diverged=17)
    rows = [(_losses(store, "end", 0, model=end), None, {})]
    rows += [(_lost(store, f"lost{n}", model), None, {}) for n, model in enumerate((early, late, noticed))]
    assert _table(store, "loss", rows).diverged_step[0] == 8


def test_a_branch_that_diverged_says_nothing_of_its_trunk(store: Store) -> None:
    start, end = (_checkpoint(store, "trunk", step, {}) for step in (15, 20))
    branch = _checkpoint(store, "branch", 30, {}, diverged=8, start=start)
    own = [(_losses(store, f"e{number}", number, model=model), None, {}) for number, model in enumerate((start, end))]
    table = _table(store, "loss", [*own, (_lost(store, "tail", branch), None, {})])
    assert table.outcome.tolist() == ["complete", "complete", "diverged"]


def test_a_trunk_that_diverged_is_known_by_a_branch_that_left_from_it(store: Store) -> None:
    fork, noticed = _checkpoint(store, "trunk", 15, {}), _checkpoint(store, "trunk", 20, {}, diverged=8)
    short = _checkpoint(store, "short", 18, {}, start=fork)
    long = _checkpoint(store, "long", 30, {}, diverged=8, start=noticed)
    rows = [(_losses(store, "short", 0, model=short), None, {}), (_lost(store, "long", long), None, {})]
    assert _table(store, "loss", rows).outcome.tolist() == ["diverged", "diverged"]


def test_a_model_that_is_no_longer_what_was_measured_is_an_error(store: Store) -> None:
    model = _checkpoint(store, "trunk", 5, {})
    evaluation = _losses(store, "e", 0, model=model)
    record = model.directory(store.root) / "record.json"
    record.unlink()
    store.ensure(model, lambda _: {"loss": 1.0})
    with pytest.raises(CoolbitsError, match=r"not what evaluation/e-\w+ was made from; run `snakemake`"):
        _table(store, "loss", [(evaluation, None, {})])


def test_tasks_have_a_row_a_task_and_metric(store: Store, bootstrap: Bootstrap) -> None:
    base, quantized = _samples(store, "base", 1, 0.7), _samples(store, "quantized", 2, 0.6)
    lost = _artifact(store, "evaluation", "lost", {}, {"outcome": "diverged", "diverged_step": 70})
    table = _table(store, "tasks", [(quantized, base, {}), (base, None, {"run": "full"}), (lost, base, {"run": "hot"})])
    assert table.run.value_counts().to_dict() == {"trunk": 3, "full": 3, "hot": 3}
    assert table[table.run == "hot"].value.isna().all()
    row = table[(table.task == "choice") & (table.run == "trunk")].iloc[0]
    values = [
        pd.read_parquet(node.directory(store.root) / "samples.parquet").query("task == 'choice'").value
        for node in (base, quantized)
    ]
    drop = bootstrap(lambda base, own: (base.mean() - own.mean()) / (1 - base.mean()), *values, **DRAWN)
    assert (row.value, row.value_low, row.value_high) == pytest.approx(bootstrap(np.mean, values[1], **DRAWN))
    assert (row.relative_drop, row.relative_drop_low, row.relative_drop_high) == pytest.approx(drop)
    assert row.samples == 35
    requests = table[table.run == "trunk"].set_index(["task", "metric"])[["requests", "cut_requests"]].to_dict("index")
    assert requests == {
        ("cloze", "acc"): {"requests": 60, "cut_requests": 12},
        ("cloze", "bits"): {"requests": 60, "cut_requests": 12},
        ("choice", "acc"): {"requests": 140, "cut_requests": 0},
    }
    assert table[table.metric == "bits"].relative_drop.isna().all()
    (only,) = _table(store, "tasks", [(lost, None, {})]).itertuples()
    assert only.outcome == "diverged" and pd.isna([only.task, only.value, only.relative_drop]).all()


def test_an_evaluation_of_tasks_that_did_not_count_what_was_cut_is_refused(store: Store) -> None:
    frame = pd.DataFrame({"task": ["cloze"], "sample": [0], "metric": ["acc"], "value": [1.0]})
    old = _artifact(store, "evaluation", "old", {"samples.parquet": frame}, {"cloze": {"acc": 1.0}})
    with pytest.raises(CoolbitsError, match="does not count requests that were cut; score it again"):
        _table(store, "tasks", [(old, None, {})])


def _answers(
    store: Store, label: str, answers: dict[str, list[float]], metric: str = "acc", broken: str = "", **more: Any
) -> Node:
    """Make an evaluation of tasks with these values of their samples; task `broken` has a score that is NaN."""
    rows = [(task, number, metric, value) for task, values in answers.items() for number, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["task", "sample", "metric", "value"])
    requests = {task: {"made": len(values), "cut": 0} for task, values in answers.items()}
    scores = [[[-1.5, False]], [[-2.5, True]]]
    lines = [{"task": task, "sample": 0, "resps": scores + [[[None, False]]] * (task == broken)} for task in answers]
    files = {"samples.parquet": frame, "samples.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines)}
    summary = {"requests": requests} | ({"non_finite": True} if broken else {})
    return _artifact(store, "evaluation", label, files, summary, **more)


NUMBERS = ["value", "value_low", "value_high", "relative_drop", "relative_drop_low", "relative_drop_high"]


def test_a_score_that_is_nan_leaves_its_task_without_numbers_and_all_else_as_it_is(store: Store) -> None:
    base = _answers(store, "base", {"cloze": [1, 0, 1, 0], "choice": [1, 0, 0]})
    good = _answers(store, "good", {"cloze": [1, 0, 0, 0], "choice": [0, 1, 0]})
    lost = _answers(store, "lost", {"cloze": [1, np.nan, 0, 0], "choice": [0, 1, 0]})
    rows = [(base, None, {}), (good, base, {"quantizer": "rtn-w3"}), (lost, base, {"quantizer": "rtn-w2"})]
    table = _table(store, "tasks", rows).set_index(["quantizer", "task"])
    assert table.loc[("rtn-w2", "cloze"), NUMBERS].isna().all()
    assert table.loc[("rtn-w2", "cloze"), ["base_value", "samples", "outcome"]].tolist() == [0.5, 4, "complete"]
    assert table.drop(("rtn-w2", "cloze"))[NUMBERS].notna().all(axis=None)
    assert table.loc[("rtn-w3", "cloze"), "value"] == 0.25 and table.loc[("rtn-w2", "choice"), "value"] == 1 / 3


@pytest.mark.parametrize("which", ["own", "base"])
def test_answers_among_scores_that_are_not_finite_are_no_accuracy(store: Store, which: str) -> None:
    """Of NaN the first choice is the best one, and the gold one as often as chance has it. Other tasks are as ever."""
    answers = {"cloze": [1.0, 0.0, 0.0, 1.0], "choice": [1.0, 0.0]}
    base = _answers(store, "base", answers, broken="cloze" * (which == "base"))
    own = _answers(store, "own", answers, broken="cloze" * (which == "own"))
    table = _table(store, "tasks", [(base, None, {}), (own, base, {"quantizer": "rtn-w2"})])
    assert set(table.outcome) == {"complete"}
    assert table[table.task == "choice"][NUMBERS].notna().all(axis=None)
    full, quantized = table[table.task == "cloze"].itertuples()
    assert (np.isnan(full.value), np.isnan(quantized.value)) == (which == "base", which == "own")
    assert np.isnan(quantized.relative_drop)


@pytest.mark.parametrize(
    ("metric", "accuracy"),
    [
        *(("acc", True), ("acc_norm", True), ("acc_norm,strip", True), ("exact_match", True)),
        *(("exact_match,strict-match", True), ("f1", False), ("perplexity", False), ("accidents", False)),
    ],
)
def test_an_accuracy_has_a_drop_whatever_filter_picked_the_answers(store: Store, metric: str, accuracy: bool) -> None:
    base = _answers(store, "base", {"gsm8k": [1.0, 1.0, 0.0, 0.0]}, metric)
    own = _answers(store, "own", {"gsm8k": [1.0, 0.0, 0.0, 0.0]}, metric)
    (row,) = _table(store, "tasks", [(own, base, {})]).itertuples()
    assert row.relative_drop == 0.5 if accuracy else np.isnan(row.relative_drop)


def test_a_perplexity_is_that_of_the_mean_log_likelihood(store: Store) -> None:
    """Of which lm-eval keeps one a sample, under the name of the metric that it makes of them."""
    base = _answers(store, "base", {"lambada_openai": [-1.0, -3.0, -2.0]}, "perplexity")
    own = _answers(store, "own", {"lambada_openai": [-2.0, -4.0, -3.0]}, "perplexity")
    (row,) = _table(store, "tasks", [(own, base, {})]).itertuples()
    assert (row.value, row.base_value) == pytest.approx((np.exp(3), np.exp(2)))
    assert np.exp(2) <= row.value_low < row.value < row.value_high <= np.exp(4)


def test_tasks_may_be_asked_of_more_samples_by_another_measure(store: Store) -> None:
    """A model that diverged has rows of what it would have been asked alone."""
    few, many = (_answers(store, f"n{count}", {"cloze": [1.0] * count}, measure={"limit": count}) for count in (3, 4))
    other = _answers(store, "other", {"choice": [1.0, 0.0]}, measure={"limit": 2})
    gone = {"outcome": "diverged", "diverged_step": 70}
    lost = _artifact(store, "evaluation", "lost", {}, gone, measure={"limit": 4})
    table = _table(store, "tasks", [(few, None, {}), (many, None, {}), (other, None, {}), (lost, None, {})])
    assert table.samples.fillna(0).tolist() == [3, 4, 2, 0]
    assert table.task.tolist() == ["cloze", "cloze", "choice", "cloze"]


def test_a_sample_that_a_model_was_not_asked_is_an_error(store: Store) -> None:
    few, many = (_answers(store, f"n{count}", {"cloze": [1.0] * count}) for count in (3, 4))
    with pytest.raises(CoolbitsError, match="task cloze: the rows of the table were scored on different samples"):
        _table(store, "tasks", [(few, None, {}), (many, None, {})])


def test_fallbacks_are_in_the_rows_of_tasks(store: Store) -> None:
    made = _artifact(store, "quantized", "q", {}, {"modules": 8, "fallbacks": 2})
    base, own = _samples(store, "base", 1, 0.7), _samples(store, "own", 2, 0.6, quantized=made)
    table = _table(store, "tasks", [(base, None, {"run": "full"}), (own, base, {})])
    assert set(table[table.run == "full"].fallbacks) == {0}
    assert set(table[table.run == "trunk"].fallbacks) == {2}


def test_metrics_are_concatenated_and_take_the_place_of_descriptors(store: Store) -> None:
    frame = pd.DataFrame(
        {"step": [1, 2], "tokens": [10, 20], "loss": [3.0, 2.9], "lr": [0.1, 0.2], "data_digest": ["a", "b"]}
    )
    good = _checkpoint(store, "good", 2, {"metrics.parquet": frame})
    lost = _checkpoint(store, "lost", 2, {"metrics.parquet": frame[:1]}, diverged=1)
    bare = _checkpoint(store, "bare", 9, {}, diverged=7)
    table = _table(store, "metrics", [(good, None, {"run": "a"}), (lost, None, {"run": "b"}), (bare, None, {})])
    assert table[["run", "step", "loss", "outcome"]].fillna(0).to_numpy().tolist() == [
        ["a", 1, 3.0, "complete"],
        ["a", 2, 2.9, "complete"],
        ["b", 1, 3.0, "diverged"],
        ["trunk", 7, 0.0, "diverged"],
    ]
    with pytest.raises(CoolbitsError, match="no metrics; a table of metrics takes the last checkpoint"):
        _table(store, "metrics", [(_checkpoint(store, "early", 1, {}), None, {})])


def test_ledgers_are_joined_with_their_rows(store: Store) -> None:
    ledger = pd.DataFrame({"module": ["a", "b"], "method": ["gptq", "rtn"], "bits": [3, 3]})
    quantized = _artifact(store, "quantized", "q", {"ledger.parquet": ledger}, {"fallbacks": 1})
    lost = _artifact(store, "quantized", "lost", {}, {"outcome": "diverged", "diverged_step": 70})
    table = _table(store, "ledger", [(lost, None, {"run": "hot"}), (quantized, None, {"method": "gptq"})])
    assert table[["module", "method", "run"]].fillna("").to_numpy().tolist() == [
        *(["", "", "hot"], ["a", "gptq", "trunk"], ["b", "rtn", "trunk"])
    ]
    assert table.diverged_step.fillna(0).tolist() == [70, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.model_copy(update={"evaluation": "nowhere"}), "'nowhere'"),
        (lambda row: row.model_copy(update={"columns": {k: v for k, v in row.columns.items() if k != "lr"}}), "lr"),
        (lambda row: row.model_copy(update={"columns": row.columns | {"tokens": None}}), "tokens"),
        (lambda row: row.model_copy(update={"columns": row.columns | {"optimizer": None}}), "optimizer"),
    ],
)
def test_a_missing_role_column_or_value_is_an_error(
    store: Store, tmp_path: Path, change: Callable[[Row], Row], message: str
) -> None:
    node = _losses(store, "base", 1)
    recipe = Table(content="loss", rows=(change(Row(evaluation="row", columns=COLUMNS)),))
    with pytest.raises(CoolbitsError, match=message):
        tables.build_table(recipe, {"row": node.directory(store.root)}, store.root, tmp_path)


def test_of_a_pretrained_model_nothing_has_to_be_known_of_its_training(store: Store) -> None:
    node, unknown = _losses(store, "base", 1), dict.fromkeys(("optimizer", "step", "peak_lr", "lr", "seed"))
    (given, own) = _table(
        store, "loss", [(node, None, unknown | {"source": "pretrained"}), (node, None, {})]
    ).itertuples()
    assert given.loss == own.loss
    assert pd.isna([given.optimizer, given.step, given.peak_lr, given.seed]).all()


@pytest.mark.parametrize(
    ("document", "tokens"),
    [(range(3), [1, 2, 3]), (range(len(TOKENS)), TOKENS + 1), (range(1, len(TOKENS) + 1), TOKENS)],
    ids=["fewer", "longer", "others"],
)
def test_other_documents_than_the_base_are_an_error(store: Store, document: range, tokens: Any) -> None:
    frame = pd.DataFrame({"document": document, "tokens": tokens, "nats": 1.0})
    other = _artifact(store, "evaluation", "other", {"documents.parquet": frame}, {})
    with pytest.raises(CoolbitsError, match="other documents than its base"):
        _table(store, "loss", [(other, _losses(store, "base", 1), {})])


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"document": [0], "tokens": [3]}, "no column nats"), ({"document": [], "tokens": [], "nats": []}, "no rows")],
)
def test_documents_without_a_column_or_any_row_are_an_error(
    store: Store, columns: dict[str, list[int]], message: str
) -> None:
    broken = _artifact(store, "evaluation", "broken", {"documents.parquet": pd.DataFrame(columns)}, {})
    with pytest.raises(CoolbitsError, match=rf"documents\.parquet: {message}; score it again"):
        _table(store, "loss", [(broken, None, {})])


def test_a_table_is_the_same_bytes_again(store: Store, tmp_path: Path) -> None:
    node = _losses(store, "base", 1)
    recipe = Table(content="loss", rows=(Row(evaluation="row", columns=COLUMNS),))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tables.build_table(recipe, {"row": node.directory(store.root)}, store.root, tmp_path / name)
    for file in ("table.parquet", "documents.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_hundreds_of_rows_take_seconds(store: Store, tmp_path: Path) -> None:
    nodes = [_losses(store, f"e{number}", number) for number in range(20)]
    directories = {f"row.{number}": nodes[number % 20].directory(store.root) for number in range(1500)}
    rows = tuple(Row(evaluation=role, base="row.0", columns=COLUMNS) for role in directories)
    started = time.process_time()
    tables.build_table(Table(content="loss", rows=rows), directories, store.root, tmp_path)
    assert time.process_time() - started < 10
