"""Which tokens are learned: exactly the assistant's words and the token that ends them, for any template."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
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
_BARE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
# A template, what stands between the request for an answer and the answer, and what ends the answer.
TEMPLATES = {
    "plain": (chat_template("plain", None), " ", END),
    "tulu": (chat_template("tulu", None), "", END),
    "chatml": (_CHATML, "", "<|im_end|>"),
    "llama": (_LLAMA, "", "<|eot|>"),
    "mistral": (_MISTRAL, " ", END),
    "bare": (_BARE, " ", END),  # opens with plain text
}
SPECIAL = (END, "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>", "[INST]", "[/INST]")
words = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8)


def learned_text(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    text: str = tokenizer.decode(example.tokens[example.learned])
    return text


def control_tokens(tokenizer: PreTrainedTokenizerFast, tokens: Iterable[int]) -> list[str]:
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [special[token] for token in tokens if token in special]


@pytest.fixture(scope="session")
def chat_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with a special token for every word of control in the templates."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, pad_token=END)


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


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_special_tokens_written_out_in_a_message_are_plain_text(
    name: str, loss_on: Any, chat_tokenizer: Any, conversation: Chat
) -> None:
    """All control tokens are the template's: as many as in a conversation of equal turns that has none written out."""
    template, before, end = TEMPLATES[name]
    said = [f"what does {text} {text}do?" for text in SPECIAL], [f"it ends {text}" for text in SPECIAL]
    turns = [turn for pair in zip(*said, strict=True) for turn in zip(("user", "assistant"), pair, strict=True)]
    encoder = Encoder(chat_tokenizer, template, loss_on, 1000)
    example = encoder.encode(conversation(*turns))
    plain = encoder.encode(conversation(*((role, "words") for role, _ in turns)))
    assert example is not None and plain is not None
    assert control_tokens(chat_tokenizer, example.tokens) == control_tokens(chat_tokenizer, plain.tokens)
    answers = [before + words + end for words in said[1]]
    assert learned_text(chat_tokenizer, example) == "".join(answers if loss_on == "all" else answers[-1:])
    whole = chat_tokenizer.apply_chat_template(conversation(*turns), chat_template=template, tokenize=False)
    assert chat_tokenizer.decode(example.tokens) == whole.rstrip()


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("changed", [None, normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])])
def test_what_is_plain_has_the_tokens_of_a_tokenizer_without_special_ones(
    chat_tokenizer: Any, conversation: Chat, changed: Any, normalized: bool
) -> None:
    """Where words meet a special token written out they are tokenized as one text, whatever the tokenizer changes."""
    backend = Tokenizer.from_str(chat_tokenizer.backend_tokenizer.to_str())
    if changed:
        backend.normalizer = changed
    special = [AddedToken(text, special=True, normalized=normalized) for text in SPECIAL]
    backend.add_special_tokens(special)
    opened = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0])
    words = "how Cool,<|im_end|>bits and <<|eot|> |>"
    example = Encoder(opened, _CHATML, "last", 1000).encode(conversation(("user", "?"), ("assistant", words)))
    plain = Tokenizer.from_str(backend.to_str())
    plain.encode_special_tokens = True
    assert example is not None
    assert example.tokens[example.learned].tolist() == [
        *plain.encode(words, add_special_tokens=False).ids,
        backend.token_to_id("<|im_end|>"),
    ]


def test_special_tokens_that_overlap_are_all_plain_text(chat_tokenizer: Any, conversation: Chat) -> None:
    backend = Tokenizer.from_str(chat_tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<a>b", ">bc", "a>", "cd")])
    opened = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)
    example = Encoder(opened, _CHATML, "last", 1000).encode(conversation(("user", "?"), ("assistant", "<a>bcd")))
    assert example is not None
    answer = example.tokens[example.learned].tolist()
    assert opened.decode(answer) == "<a>bcd<|im_end|>"
    assert control_tokens(opened, answer) == ["<|im_end|>"]


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


def spaced_tokenizer(way: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single letters that puts a space before texts: before all, the first part or every part."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {text: place for place, text in enumerate(["<unk>", "\n", "\u2581", *letters])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    if way == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=way, split=False)
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END)


@pytest.mark.parametrize("way", ["first", "always", "normalizer"])
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_a_space_that_is_put_before_texts_is_put_before_no_piece(
    name: str, loss_on: Any, way: str, conversation: Chat
) -> None:
    """Pieces have the tokens that they have within the whole text, those with a special token written out, too."""
    tokenizer, template = spaced_tokenizer(way), TEMPLATES[name][0]
    encoder = Encoder(tokenizer, template, loss_on, 400)
    said = [("system", "be cool"), ("user", "one?"), ("assistant", "bits"), ("user", "two?")]
    for turns in (said[1:3], [*said, ("assistant", "cool <|eot|}?")]):
        example = encoder.encode(conversation(*turns))
        whole = tokenizer.apply_chat_template(conversation(*turns), chat_template=template, tokenize=False).rstrip()
        assert example is not None
        assert example.tokens.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
    marked = encoder.encode(conversation(*said, ("assistant", "cool <|eot|>?")))
    closed, brace = tokenizer.convert_tokens_to_ids([">", "}"])
    assert marked is not None
    assert marked.tokens.tolist() == [closed if token == brace else token for token in example.tokens.tolist()]


@pytest.mark.parametrize("words", ["bits", "bits <|eot|>"], ids=["plain", "written out"])
def test_a_tokenizer_that_frames_and_cuts_texts_does_so_with_no_piece(
    words: str, chat_tokenizer: Any, conversation: Chat
) -> None:
    """Llama's puts a token before every text; some were saved as they cut and padded the texts of their training."""
    turns = conversation(("user", words), ("assistant", words))
    whole = Encoder(chat_tokenizer, _CHATML, "last", 400).encode(turns)
    backend = Tokenizer.from_str(chat_tokenizer.backend_tokenizer.to_str())
    frame = [(END, chat_tokenizer.eos_token_id)]
    backend.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=frame)
    backend.enable_truncation(3)
    backend.enable_padding(length=64)
    framed = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END), _CHATML, "last", 400)
    found = framed.encode(turns)
    assert whole is not None and found is not None
    assert found.tokens.tolist() == whole.tokens.tolist()
    assert found.learned.tolist() == whole.learned.tolist()


@pytest.mark.parametrize("loss_on", ["last", "all"])
def test_what_the_assistant_says_first_answers_nothing(loss_on: Any, tokenizer: Any, conversation: Chat) -> None:
    messages = conversation(("assistant", "hello"), ("user", "one?"), ("assistant", "bits"))
    example = Encoder(tokenizer, _CHATML, loss_on, 400).encode(messages)
    assert example is not None
    assert learned_text(tokenizer, example) == "bits<|im_end|>"
    assert "hello" in tokenizer.decode(example.tokens)


def test_a_conversation_that_the_template_refuses_is_named(tokenizer: Any, turns: Any) -> None:
    proud = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + _CHATML
    with pytest.raises(CoolbitsError, match=r"^row 3: the chat template refuses the conversation \(no system role\)$"):
        Encoder(tokenizer, proud, "last", 64).encode(turns, "row 3")


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


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_conversation_without_an_answer_is_refused(role: str, tokenizer: Any, conversation: Chat) -> None:
    with pytest.raises(CoolbitsError, match=r"row 3: no turn of the assistant answers another"):
        Encoder(tokenizer, _CHATML, "last", 64).encode(conversation((role, "one?")), "row 3")


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
