"""Which tokens are learned: exactly the assistant's words and the token that ends them, for any template."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.finetuning.encoding import Encoder, Example
from coolbits.finetuning.templates import chat_template

Chat = Callable[..., list[dict[str, str]]]
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
END = "<|endoftext|>"
# A template, what stands between the request for an answer and the answer, and what ends the answer.
TEMPLATES = {
    "plain": (chat_template("plain", None), " ", END),
    "tulu": (chat_template("tulu", None), "", END),
    "chatml": (_CHATML, "", "<|im_end|>"),
    "llama": (_LLAMA, "", "<|eot|>"),
    "mistral": (_MISTRAL, " ", END),
}
words = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8)


def learned_text(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    text: str = tokenizer.decode(example.tokens[example.learned])
    return text


@pytest.fixture
def turns(conversation: Chat) -> list[dict[str, str]]:
    return conversation(
        ("system", "be cool"), ("user", "one?"), ("assistant", "bits"), ("user", "two?"), ("assistant", "naïve 日本")
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_last_answer_and_its_end_are_learned(name: str, tokenizer: Any, turns: Any) -> None:
    template, before, end = TEMPLATES[name]
    example = Encoder(tokenizer, template, "last", 400).encode(turns)
    assert example is not None
    assert learned_text(tokenizer, example) == f"{before}naïve 日本{end}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_all_answers_and_their_ends_are_learned(name: str, tokenizer: Any, turns: Any) -> None:
    template, before, end = TEMPLATES[name]
    example = Encoder(tokenizer, template, "all", 400).encode(turns)
    assert example is not None
    assert learned_text(tokenizer, example) == f"{before}bits{end}{before}naïve 日本{end}"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_the_text_is_the_template_s_up_to_the_end_of_the_last_answer(
    name: str, loss_on: Any, tokenizer: Any, turns: Any, conversation: Chat
) -> None:
    template = TEMPLATES[name][0]
    example = Encoder(tokenizer, template, loss_on, 400).encode([*turns, *conversation(("user", "and?"))])
    whole = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    assert example is not None
    assert tokenizer.decode(example.tokens) == whole.rstrip()


@settings(deadline=None)
@given(question=words, answer=words, loss_on=st.sampled_from(["last", "all"]), name=st.sampled_from(list(TEMPLATES)))
def test_the_mask_is_exact_whatever_is_said(
    tokenizer: Any, question: str, answer: str, loss_on: Any, name: str
) -> None:
    template, before, end = TEMPLATES[name]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    example = Encoder(tokenizer, template, loss_on, 1000).encode(messages)
    assert example is not None
    assert learned_text(tokenizer, example) == f"{before}{answer}{end}"


def test_the_prompt_has_the_tokens_that_it_has_when_the_model_is_asked(tokenizer: Any, conversation: Chat) -> None:
    template = TEMPLATES["plain"][0]
    messages = conversation(("user", "one?"), ("assistant", "bits"))
    asked = tokenizer.apply_chat_template(
        messages[:1], chat_template=template, add_generation_prompt=True, return_dict=False
    )
    example = Encoder(tokenizer, template, "last", 64).encode(messages)
    assert example is not None
    assert example.tokens[~example.learned].tolist() == asked
    assert not example.learned[: len(asked)].any() and example.learned[len(asked) :].all()


def test_a_long_conversation_is_cut_and_one_without_an_answer_left_is_dropped(
    tokenizer: Any, conversation: Chat
) -> None:
    messages = conversation(("user", "one?"), ("assistant", "bits " * 20))
    whole = Encoder(tokenizer, TEMPLATES["plain"][0], "last", 400).encode(messages)
    assert whole is not None
    start = int(np.flatnonzero(whole.learned)[0])
    cut = Encoder(tokenizer, TEMPLATES["plain"][0], "last", start + 3).encode(messages)
    assert cut is not None
    assert cut.tokens.tolist() == whole.tokens[: start + 3].tolist() and cut.learned.sum() == 3
    assert Encoder(tokenizer, TEMPLATES["plain"][0], "last", start).encode(messages) is None


def test_a_conversation_without_an_answer_is_refused(tokenizer: Any, conversation: Chat) -> None:
    with pytest.raises(CoolbitsError, match=r"row 3: the conversation has no turn of the assistant"):
        Encoder(tokenizer, _CHATML, "last", 64).encode(conversation(("user", "one?")), "row 3")


def test_a_template_that_does_not_end_answers_is_refused(tokenizer: Any, turns: Any) -> None:
    endless = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(CoolbitsError, match="puts no end of turn"):
        Encoder(tokenizer, endless, "last", 64).encode(turns)


def test_a_template_that_renders_earlier_turns_anew_is_refused_where_it_matters(tokenizer: Any, turns: Any) -> None:
    kept = "messages %}{% if loop.last or m.role != 'assistant' %}"
    forgetful = _CHATML.replace("messages %}", kept).replace("{% endfor %}", "{% endif %}{% endfor %}")
    assert Encoder(tokenizer, forgetful, "last", 400).encode(turns) is not None
    with pytest.raises(CoolbitsError, match="renders turns before the answer to message 4 otherwise"):
        Encoder(tokenizer, forgetful, "all", 400).encode(turns)


def test_the_tokenizer_s_own_template_must_be_there() -> None:
    assert chat_template("tokenizer", "own") == "own"
    with pytest.raises(CoolbitsError, match=r"no chat template of its own; choose one of plain, tulu"):
        chat_template("tokenizer", None)
