"""Requests and the context: those that are cut are counted, and a context without room for an answer is refused."""

from pathlib import Path

import pytest
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from transformers import AutoTokenizer, MptConfig, MptForCausalLM, PreTrainedTokenizerBase

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.tasks import Suite, check_context, score
from coolbits.study.recipes.evaluation import Tasks


def suite_of(rows: list[dict], encoder: PreTrainedTokenizerBase, metric: str, **form) -> Suite:
    """Return a task of lm-eval's own with these rows."""
    config = {
        "task": "told",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "context",
        "doc_to_target": "target",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
    }
    loaded = {"tasks": {"told": ConfigurableTask(config=config | form)}, "groups": {}, "group_map": {}}
    return Suite(Tasks(tasks=("told",)), encoder, loaded, {"told": ("told",)}, {})


def generating(tokenizer: Path, lengths: tuple[int, ...], **options) -> Suite:
    """Return a task that asks for text after contexts of so many tokens."""
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    texts = [encoder.decode(encoder.encode(" ba do ki lu me no")[:length]) for length in lengths]
    assert [len(encoder.encode(text)) for text in texts] == [*lengths]
    form = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"], "do_sample": False} | options}
    return suite_of([{"context": text, "target": "x"} for text in texts], encoder, "exact_match", **form)


def test_what_is_generated_needs_room_too(tokenizer, tiny_model):
    """A context of 16 tokens, of which 8 are to be generated, holds 8."""
    suite = generating(tokenizer, (7, 8, 9), max_gen_toks=8)
    assert score(suite, tiny_model(context=16))["requests"] == {"told": {"made": 3, "cut": 1}}


def test_the_context_is_the_models_whatever_its_config_calls_it(tokenizer):
    """That of MPT reads no more: a longer request fails in it."""
    config = MptConfig(vocab_size=300, d_model=16, n_layers=1, n_heads=2, max_seq_len=16)
    rows = [{"context": "ba" * length, "target": " ki"} for length in (2, 40)]
    suite = suite_of(rows, AutoTokenizer.from_pretrained(tokenizer), "acc", output_type="loglikelihood")
    assert score(suite, MptForCausalLM(config).eval())["requests"] == {"told": {"made": 2, "cut": 1}}


def test_a_last_token_is_predicted_and_never_read(tokenizer, tiny_model):
    """A context of 16 tokens holds a question and its answer of 17 together, and an answer of 16 behind one token."""
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    token = "!"
    assert [len(encoder.encode(token * count)) for count in (1, 17, 18)] == [1, 17, 18]
    rows = [{"context": token * (16 - after), "target": token * (1 + after)} for after in (0, 1, 15)]
    rows.append({"context": token * 17, "target": token})
    suite = suite_of(rows, encoder, "acc", output_type="loglikelihood", target_delimiter="")
    assert score(suite, tiny_model(context=16))["requests"] == {"told": {"made": 4, "cut": 1}}


def test_texts_scored_in_windows_are_not_cut(tokenizer, tiny_model):
    rows = [{"context": "", "target": " ki" * length} for length in (2, 40)]
    metrics = [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}]
    form = {"output_type": "loglikelihood_rolling", "metric_list": metrics}
    suite = suite_of(rows, AutoTokenizer.from_pretrained(tokenizer), "word_perplexity", **form)
    assert score(suite, tiny_model(context=16))["requests"] == {"told": {"made": 2, "cut": 0}}


@pytest.mark.parametrize(("options", "tokens"), [({"max_gen_toks": 16}, 16), ({"max_tokens": 40}, 40), ({}, 256)])
def test_a_context_that_answers_would_fill_is_refused_before_anything_is_asked(tokenizer, tiny_model, options, tokens):
    suite = generating(tokenizer, (1,), **options)
    sentence = f"^task told: max_gen_toks is {tokens}, but the model's context is 16 tokens, .* so that 15 can be gene"
    with pytest.raises(CoolbitsError, match=sentence):
        check_context(suite, tiny_model(context=16).config)
    with pytest.raises(CoolbitsError, match=sentence):  # as tasks do whose requests alone say what is generated
        score(suite, tiny_model(context=16))


def test_a_token_of_the_question_is_room_enough(tokenizer, tiny_model):
    suite, model = generating(tokenizer, (1, 2), max_gen_toks=15), tiny_model(context=16)
    check_context(suite, model.config)
    assert score(suite, model)["requests"] == {"told": {"made": 2, "cut": 1}}


def test_a_continuation_longer_than_the_context_is_refused_where_only_its_request_tells(tokenizer, tiny_model):
    rows = [{"context": "ba", "target": " ki" * length} for length in (2, 40)]
    suite = suite_of(rows, AutoTokenizer.from_pretrained(tokenizer), "acc", output_type="loglikelihood")
    sentence = r"^task told: a continuation has \d+ tokens, but the model's context is 16; leave"
    with pytest.raises(CoolbitsError, match=sentence):
        score(suite, tiny_model(context=16))
