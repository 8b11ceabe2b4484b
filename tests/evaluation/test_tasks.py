"""lm-eval on a model in memory: scores by hand, chance, equal requests for all models, and errors in one sentence."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from transformers import AutoTokenizer

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.passages import choice_rows, cloze_rows, held_out_paragraphs
from coolbits.evaluation.samples import write_results
from coolbits.evaluation.tasks import Suite, check_context, load_suite, score
from coolbits.study.recipes.evaluation import Tasks

EMBEDDED = Tasks(tasks=("embedded",), batch_size=8)


@pytest.fixture(scope="module")
def suite(corpus, tokenizer) -> Suite:
    return load_suite(EMBEDDED, corpus, tokenizer)


@pytest.fixture(scope="module")
def results(suite, tiny_model):
    return score(suite, tiny_model())


def loglikelihood(model, tokenizer, context: str, continuation: str) -> tuple[float, bool]:
    """Return what lm-eval should: the sum over the continuation's tokens, and whether each is the likeliest."""
    whole, first = tokenizer.encode(context + continuation), len(tokenizer.encode(context))
    with torch.no_grad():
        log_probabilities = model.double()(input_ids=torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
    scored = log_probabilities[first - 1 :]
    targets = torch.tensor(whole[first:])
    return scored.gather(-1, targets[:, None]).sum().item(), bool((scored.argmax(-1) == targets).all())


def test_cloze_scores_equal_a_computation_by_hand(corpus, tokenizer, results, tiny_model):
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    rows = cloze_rows(held_out_paragraphs(corpus), None, seed=0)
    samples = results["samples"]["coolbits_cloze"]
    assert len(samples) == len(rows)
    for row, sample in zip(rows[:5], samples[:5], strict=True):
        expected, greedy = loglikelihood(tiny_model(), encoder, row["context"], row["target"])
        tokens = len(encoder.encode(row["context"] + row["target"])) - len(encoder.encode(row["context"]))
        assert sample["arguments"] == [(row["context"], row["target"])]
        assert sample["loglikelihood"] == pytest.approx(expected / tokens, rel=1e-4)
        assert sample["acc"] == float(greedy)


def test_choice_scores_equal_a_computation_by_hand(corpus, tokenizer, results, tiny_model):
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    rows = choice_rows(held_out_paragraphs(corpus), None, seed=0)
    for row, sample in zip(rows[:5], results["samples"]["coolbits_choice"][:5], strict=True):
        pairs = [(context, f" {row['continuation']}") for context in row["contexts"]]
        expected = [loglikelihood(tiny_model(), encoder, *pair)[0] for pair in pairs]
        assert sample["arguments"] == pairs
        assert [found[0][0] for found in sample["resps"]] == pytest.approx(expected, rel=1e-4)
        assert sample["acc"] == float(np.argmax(expected) == row["answer"])


@pytest.mark.parametrize("head", ["zero", "random"])
def test_a_model_that_knows_nothing_scores_chance(tokenizer, tiny_model, tmp_path, head):
    generator = np.random.default_rng(0)
    text = "\n".join(" ".join(generator.choice(["ba", "doki", "lume", "nopa"], 34)) for _ in range(400))
    frame = pd.DataFrame([{"id": "0", "split": "validation", "source": "one", "text": text}])
    frame.to_parquet(tmp_path / "documents-00000.parquet", index=False)
    model = tiny_model()
    if head == "zero":
        torch.nn.init.zeros_(model.get_output_embeddings().weight)
    suite = load_suite(Tasks(tasks=("embedded",), batch_size=64), tmp_path, tokenizer)
    samples = score(suite, model)["samples"]
    right = [sample["acc"] for sample in samples["coolbits_choice"]]
    assert np.mean(right) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    if head == "zero":
        likelihoods = [sample["loglikelihood"] for sample in samples["coolbits_cloze"]]
        assert likelihoods == pytest.approx([-math.log(300)] * 400, rel=1e-5)


def test_batches_do_not_change_the_scores(suite, results, tiny_model):
    one_by_one = dataclasses.replace(suite, recipe=EMBEDDED.model_copy(update={"batch_size": 1}))
    again = score(one_by_one, tiny_model())
    for task in ("coolbits_cloze", "coolbits_choice"):
        found, expected = ([sample["resps"][0][0][0] for sample in each["samples"][task]] for each in (again, results))
        assert found == pytest.approx(expected, rel=1e-4)


def test_base_and_quantized_are_asked_the_same(suite, results, tiny_model):
    other = score(suite, tiny_model(seed=1))
    for task, samples in results["samples"].items():
        assert [sample["arguments"] for sample in samples] == [sample["arguments"] for sample in other["samples"][task]]
        assert [sample["resps"] for sample in samples] != [sample["resps"] for sample in other["samples"][task]]


def test_every_model_is_shown_the_same_shots(tokenizer, tiny_model):
    rows = [{"context": f"question {number}", "target": f" answer {number}"} for number in range(20)]
    config = {
        "task": "shown",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows[:4]), "train": Dataset.from_list(rows[4:])},
        "test_split": "test",
        "fewshot_split": "train",
        "num_fewshot": 3,
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    loaded = {"tasks": {"shown": ConfigurableTask(config=config)}, "groups": {}, "group_map": {}}
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    suite = Suite(Tasks(tasks=("shown",), shots=3), encoder, loaded, {"shown": ("shown",)}, {})
    first, second = (score(suite, tiny_model(seed))["samples"]["shown"] for seed in (0, 1))
    assert [sample["arguments"] for sample in first] == [sample["arguments"] for sample in second]
    assert first[0]["arguments"][0][0].count("answer") == 3


def test_artifacts_are_the_same_bytes_each_time(suite, results, tiny_model, tmp_path):
    summaries = []
    for name, found in (("first", results), ("second", score(suite, tiny_model()))):
        (tmp_path / name).mkdir()
        summaries.append(write_results(found, suite.leaves, tmp_path / name))
    names = ["results.json", "samples.jsonl", "samples.parquet"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == names
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in names)
    assert summaries[0] == summaries[1]


def test_the_summary_is_the_mean_of_the_samples(suite, results, tmp_path):
    summary = write_results(results, suite.leaves, tmp_path)
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    means = frame.groupby(["task", "metric"])["value"].mean()
    assert set(means.index) == {
        ("coolbits_cloze", "acc"),
        ("coolbits_cloze", "loglikelihood"),
        ("coolbits_choice", "acc"),
    }
    for (task, metric), mean in means.items():
        assert summary[task][metric] == pytest.approx(mean)
    assert "non_finite" not in summary


def test_a_broken_model_is_recorded_not_raised(suite, tiny_model, tmp_path):
    model = tiny_model()
    torch.nn.init.constant_(model.get_output_embeddings().weight, math.nan)
    summary = write_results(score(suite, model), suite.leaves, tmp_path)
    assert summary["non_finite"]
    assert summary["coolbits_cloze"]["loglikelihood"] is None
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert frame.loc[frame["metric"] == "loglikelihood", "value"].isna().all()
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["resps"][0][0][0] for line in lines] == [None] * len(lines)


def test_a_continuation_longer_than_the_context_is_refused(suite, tiny_model):
    with pytest.raises(CoolbitsError, match=r"coolbits_choice: a continuation has \d+ tokens, .* context is 16"):
        check_context(suite, tiny_model(context=16).config)


def test_the_built_cloze_is_never_cut_in_a_context_of_64_tokens(suite, tiny_model, tmp_path, caplog):
    results = score(suite, tiny_model(context=64))
    rows = len(results["samples"]["coolbits_cloze"])
    assert results["requests"]["coolbits_cloze"] == {"made": rows, "cut": 0}
    assert results["versions"]["coolbits_cloze"] == 2.0
    assert not [line for line in caplog.messages if "coolbits_cloze" in line]
    assert write_results(results, suite.leaves, tmp_path)["requests"]["coolbits_cloze"]["cut"] == 0


def test_what_does_not_fit_the_context_is_counted_and_said_once(package, tokenizer, tiny_model, caplog):
    """A context holds all but the last token, which is never read."""
    suite = load_suite(Tasks(tasks=("olmo_sciq", "olmo_lambada")), None, tokenizer)
    asked = [(each["request"]["context"], each["request"]["continuation"]) for each in package["sciq/rc_0shot"]]
    lengths = [len(suite.tokenizer.encode(context + text)) for context, text in asked if context != "Answer:"]
    longest = max(lengths)
    for context in (longest - 1, longest - 2):
        counts = score(suite, tiny_model(context=context))["requests"]
        cut = sum(length > context + 1 for length in lengths)
        assert counts["olmo_sciq"] == {"made": 4, "cut": cut} and counts["olmo_lambada"]["cut"] == 0
    said = (
        f"{cut} of 4 requests of olmo_sciq were longer than the model's {longest - 2} tokens, and lost their beginning"
    )
    score(suite, tiny_model(seed=1, context=longest - 2))
    assert cut and caplog.messages == [said]


def test_built_tasks_have_no_shots_to_show(corpus, tokenizer):
    with pytest.raises(CoolbitsError, match="shots: found 5, but coolbits_cloze can only be asked at 0"):
        load_suite(Tasks(tasks=("coolbits_cloze",), shots=5), corpus, tokenizer)
