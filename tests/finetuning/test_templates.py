"""Chat templates by name, and the tokenizer's own."""

from typing import Any

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


@pytest.mark.parametrize("named", [False, True])
def test_a_template_that_asks_for_the_date_gets_the_same_every_day(named: bool, tokenizer: Any) -> None:
    """In the formats of Llama 3 and of SmolLM3, wherever it asks; what the template says first stays as it is."""
    own = (
        "\n{% macro again() %}{{ strftime_now('%d %B %Y') }}{% endmacro %}"
        "{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ today }}, {{ again() }}: {{ messages[0].content }}"
    )
    dated = chat_template("tokenizer", {"default": own} if named else own)
    messages = [{"role": "user", "content": "hi"}]
    rendered = tokenizer.apply_chat_template(messages, chat_template=dated, tokenize=False)
    assert rendered == "\n26 Jul 2024, 26 July 2024: hi"
