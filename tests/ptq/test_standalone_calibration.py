"""Calibration from text that no study prepared."""

import hashlib
import json
import lzma
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.data.sources import EMBEDDED, Document
from coolbits.ptq import standalone_calibration
from coolbits.ptq.origins import numbered
from coolbits.ptq.standalone_calibration import Wish, calibrate, check_heeded
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import Documents, RandomTokens, Windows
from coolbits.study.recipes.data import FileSource, HubSource
from coolbits.study.recipes.ptq import GPTQ, RTN, Grid

END = 256
OWN = Windows(sequences=3, sequence_length=8, seed=1)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are bytes, with an end-of-text token."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary | {"<end>": END}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f'{{"text": "document {number}"}}\n' for number in range(40)))
    return str(path)


def test_windows_are_pieces_of_the_documents_end_to_end(tokenizer, tmp_path):
    text = str(tmp_path / "text.txt")
    Path(text).write_text(" ".join(f"document {number}" for number in range(40)))
    drawn = calibrate(Wish(text), OWN, tokenizer, None)
    stream = [*PreTrainedTokenizerFast.from_pretrained(tokenizer).encode(Path(text).read_text()), END]
    whole = [stream[start : start + 8] for start in range(0, len(stream) - 7, 8)]
    windows = drawn.tokens.tokens.tolist()
    assert all(window in whole for window in windows)
    assert (len(windows), drawn.source, drawn.recipe) == (3, text, OWN)
    assert drawn.text_sha256 == file_digest(Path(text))


def decoded(tokenizer: Path, tokens: torch.Tensor) -> list[str]:
    """Return the texts between the end-of-text tokens of one sequence."""
    opened = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    letters = "".join(opened.convert_ids_to_tokens(tokens.tolist())).replace("\u0120", " ")
    return [text for text in letters.split("<end>") if text]


def test_between_two_documents_stands_the_end_of_text(tokenizer, text):
    """All of the text is wanted in one sequence: 10 documents of 10 letters, 30 of 11, and 40 ends."""
    drawn = calibrate(Wish(text, sequences=1, sequence_length=470), OWN, tokenizer, None).tokens.tokens
    texts = decoded(tokenizer, drawn[0])
    assert sorted(texts) == sorted(f"document {number}" for number in range(40))
    assert texts != [f"document {number}" for number in range(40)]


def test_the_seed_decides_which_windows(tokenizer, text):
    first, same, other = (calibrate(Wish(text, seed=seed), OWN, tokenizer, None).tokens.tokens for seed in (0, 0, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def many_documents(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_documents_are_chosen_over_the_whole_source(tokenizer, tmp_path):
    """Of ten thousand documents the first hundred would serve; those chosen lie evenly."""
    text = many_documents(tmp_path / "many.jsonl", [f"{number:07}" for number in range(10_000)])
    windows = calibrate(Wish(text, sequences=100), OWN, tokenizer, None).tokens.tokens
    found = [int(text) for window in windows for text in decoded(tokenizer, window)]
    quarters = torch.bincount(torch.tensor(found) // 2_500, minlength=4)
    assert quarters.sum() == 100
    # 25 each on average: a standard deviation is 4.
    assert quarters.min() > 10


def test_the_choice_stays_and_more_characters_only_add_to_its_end():
    """These letters may never change, for recipes name the seed."""

    def chosen(characters: int, seed: int) -> str:
        letters = numbered(Document("letters", letter, 0) for letter in "abcdefgh")
        return "".join(each.text for each in standalone_calibration._choose(letters, characters, seed))

    assert [chosen(3, seed) for seed in (0, 1)] == ["efh", "bfd"]
    assert chosen(5, 0) == "efhca"
    assert sorted(chosen(9, 0)) == list("abcdefgh")


def test_the_seed_decides_which_documents(tokenizer, tmp_path):
    text = many_documents(tmp_path / "many.jsonl", [f"{number:07}" for number in range(1_000)])
    first, same, other = (
        set(decoded(tokenizer, calibrate(Wish(text, 20, seed=seed), OWN, tokenizer, None).tokens.tokens.flatten()))
        for seed in (0, 0, 5)
    )
    assert first == same
    assert len(first & other) < 10


def test_packaged_english_is_shown_from_several_of_its_books(tokenizer, monkeypatch):
    """Shakespeare comes first in it, and enough of him for any calibration."""
    seen = tokenized(monkeypatch)
    calibrate(Wish(), Windows(), tokenizer, None)
    with lzma.open(EMBEDDED) as lines:
        books = {row["text"]: row["source"] for row in map(json.loads, lines)}
    assert len({books[text] for text in seen}) >= 4


def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every text is added that is tokenized from now on."""
    seen: list[str] = []

    def joined(found, *others):
        return as_it_is((seen.append(each.text) or each for each in found), *others)

    as_it_is = standalone_calibration._joined
    monkeypatch.setattr(standalone_calibration, "_joined", joined)
    return seen


def test_only_as_many_documents_are_tokenized_as_serve(tokenizer, text, monkeypatch):
    seen = tokenized(monkeypatch)
    calibrate(Wish(text), OWN, tokenizer, None)
    assert 8 * 24 <= sum(len(text) + 1 for text in seen) < 8 * 24 + 13


def test_tokens_of_very_many_letters_only_make_more_text_be_read(tmp_path):
    backend = Tokenizer(models.WordLevel({"word": 0, "<end>": 1}, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "words")
    text = many_documents(tmp_path / "wide.jsonl", ["word" + 2_000 * " "] * 40)
    drawn = calibrate(Wish(text, sequences=5), OWN, tmp_path / "words", None)
    assert drawn.tokens.tokens.tolist() == [[0] * 8] * 5


def test_a_dataset_of_the_hub_is_read_from_its_front(tokenizer, monkeypatch):
    rows = (Row(f"row {number}", {"text": f"document {number}"}, number) for number in range(1_000_000))
    monkeypatch.setattr("coolbits.data.sources.open_dataset", lambda _: Opened(0, rows, "0123456789" * 4))
    seen = tokenized(monkeypatch)
    taken = calibrate(Wish("own/er"), OWN, tokenizer, None)
    assert (taken.source, taken.origin) == ("own/er", {"commit": "0123456789" * 4})
    assert seen == [f"document {number}" for number in range(len(seen))]
    assert next(rows).reached == len(seen)


def test_every_window_says_which_documents_it_is_of(tokenizer, tmp_path):
    """Read again from there, and tokenized, they are the window."""
    texts = [f"document {number}" for number in range(20)]
    with_blank = [text for each in texts for text in (each, " ")]
    drawn = calibrate(Wish(many_documents(tmp_path / "some.jsonl", with_blank)), OWN, tokenizer, None)
    opened = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    again: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for piece in drawn.documents.to_pylist():
        text = with_blank[piece["document"]]
        ids = [*opened.encode(text), END][piece["offset"] :][: piece["tokens"]]
        assert len(ids) == piece["tokens"] > 0
        again[piece["sequence"]] += ids
        assert piece["source"] == "some.jsonl"
        assert piece["id"] == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert list(again.values()) == drawn.tokens.tokens.tolist()


def test_first_documents_say_which_they_are(tokenizer, monkeypatch):
    rows = iter(
        [Row(f"row {number}", {"text": text}, number) for number, text in enumerate(["", "one", "two", "three"])]
    )
    monkeypatch.setattr("coolbits.data.sources.open_dataset", lambda _: Opened(4, rows, None))
    own = Documents(kind="documents", source=HubSource(id="own/er"), sequences=2, sequence_length=8)
    taken = calibrate(Wish(), own, tokenizer, None)
    pieces = taken.documents.to_pylist()
    assert [(each["source"], each["document"], each["tokens"]) for each in pieces] == [
        ("own/er", 1, 3),
        ("own/er", 2, 3),
    ]
    assert taken.origin == {"commit": None}


def test_blank_documents_are_left_out(tokenizer, tmp_path):
    blank = many_documents(tmp_path / "blank.jsonl", ["", " \n", "\t"] * 200 + ["some words of text, to be seen"])
    assert END not in calibrate(Wish(blank), OWN, tokenizer, None).tokens.tokens
    with pytest.raises(CoolbitsError, match="100 sequences of 8 tokens are wanted, there are 3;"):
        calibrate(Wish(blank, sequences=100), OWN, tokenizer, None)


@pytest.mark.parametrize("texts", [[], [""], ["", " \n"] * 300], ids=["no rows", "one", "many"])
def test_blank_text_alone_is_refused(tokenizer, tmp_path, texts):
    blank = many_documents(tmp_path / "blank.jsonl", texts)
    with pytest.raises(CoolbitsError, match=r"--calibration .*blank\.jsonl: holds no text, or blank text alone"):
        calibrate(Wish(blank), OWN, tokenizer, None)


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_source_is_refused(source):
    with pytest.raises(CoolbitsError, match="--calibration: the source is empty"):
        Wish(source)


OPTIONS = {
    "--calibration": Wish("random"),
    "--sequences": Wish(sequences=3),
    "--sequence-length": Wish(sequence_length=3),
    "--seed": Wish(seed=0),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_what_a_method_would_not_heed_is_refused_by_name(option):
    with pytest.raises(CoolbitsError, match=f"^{option}: rtn looks at weights alone and takes no calibration"):
        check_heeded(OPTIONS[option], RTN(grid=Grid(bits=4)))
    check_heeded(OPTIONS[option], GPTQ(grid=Grid(bits=4)))


def test_no_method_minds_a_wish_of_nothing():
    check_heeded(Wish(), RTN(grid=Grid(bits=4)))


def test_too_little_text_is_refused(tokenizer, tmp_path):
    (tmp_path / "short.txt").write_text("a few words")
    with pytest.raises(CoolbitsError, match="3 sequences of 8 tokens are wanted, there are 1"):
        calibrate(Wish(str(tmp_path / "short.txt")), OWN, tokenizer, None)


def test_packaged_english_serves_where_nothing_is_said(tokenizer):
    drawn = calibrate(Wish(), OWN, tokenizer, None)
    assert (drawn.source, drawn.tokens.count) == ("embedded", 24)
    assert drawn.text_sha256 == file_digest(EMBEDDED)


def test_random_tokens_need_no_text(tokenizer):
    drawn = calibrate(Wish("random", sequences=50, seed=3), OWN, tokenizer, None)
    assert drawn.recipe == RandomTokens(kind="random", sequences=50, sequence_length=8, seed=3)
    assert drawn.tokens.tokens.shape == (50, 8)
    assert END not in drawn.tokens.tokens
    assert (drawn.text_sha256, drawn.documents) == (None, None)


def test_tokens_drawn_before_are_taken_as_they_are_by_no_recipe(tokenizer, tmp_path):
    before = Tokens.of_equal_length(torch.arange(12).reshape(3, 4))
    (tmp_path / "before").mkdir()
    write_tokens(before, tmp_path / "before")
    taken = calibrate(Wish(str(tmp_path / "before")), OWN, tokenizer, None)
    assert torch.equal(taken.tokens.tokens, before.tokens)
    assert (taken.recipe, taken.text_sha256) == (None, None)
    for choice in ({"sequences": 2}, {"sequence_length": 2}, {"seed": 0}):
        option = "--" + next(iter(choice)).replace("_", "-")
        with pytest.raises(CoolbitsError, match=f"{option}: .*before holds tokens that were drawn before"):
            calibrate(Wish(str(tmp_path / "before"), **choice), OWN, tokenizer, None)


def test_a_recipes_length_is_cut_to_the_models_but_not_one_asked_for(tokenizer, text):
    assert calibrate(Wish(text), OWN, tokenizer, 5).tokens.tokens.shape == (3, 5)
    with pytest.raises(CoolbitsError, match="sequences of 6 tokens, but the model has 5"):
        calibrate(Wish(text, sequence_length=6), OWN, tokenizer, 5)


def test_first_documents_know_no_seed_and_files_of_a_study_are_asked_for_by_name(tokenizer):
    own = Documents(kind="documents", source=FileSource(names=("a.txt",), sha256=("0",)), sequences=1)
    with pytest.raises(CoolbitsError, match="no seed changes"):
        calibrate(Wish(seed=1), own, tokenizer, None)
    with pytest.raises(CoolbitsError, match="name one of them with --calibration"):
        calibrate(Wish(), own, tokenizer, None)


def test_a_source_that_is_nothing_known_is_refused(tokenizer, tmp_path):
    with pytest.raises(CoolbitsError, match="no such file; allowed are embedded, random"):
        calibrate(Wish(str(tmp_path / "none.txt")), OWN, tokenizer, None)
