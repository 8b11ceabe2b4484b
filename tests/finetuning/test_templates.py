"""Chat templates by name, and the tokenizer's own."""

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.finetuning.templates import chat_template


def test_of_several_templates_of_a_tokenizer_the_default_is_taken() -> None:
    assert chat_template("tokenizer", {"tool_use": "a", "default": "b"}) == "b"
    assert chat_template("tokenizer", "c") == "c"


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (None, "the tokenizer brings no chat template of its own; choose one of plain, tulu"),
        ({"tool_use": "a", "rag": "b"}, "the tokenizer brings rag, tool_use and none called default; choose one of"),
    ],
)
def test_a_template_that_is_not_there_is_refused(own: dict[str, str] | None, said: str) -> None:
    with pytest.raises(CoolbitsError, match=f"^template: {said}"):
        chat_template("tokenizer", own)
    assert "Question: " in chat_template("plain", own)
