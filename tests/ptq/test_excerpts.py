"""Windows out of documents that lie end to end, as calibration from text that no study prepared."""

import hashlib
import json
import lzma
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.data.sources import EMBEDDED, Document
from coolbits.ptq import excerpts
from coolbits.ptq.origins import numbered
from coolbits.ptq.standalone_calibration import Wish, calibrate
from coolbits.study.recipes.calibration import Windows

END = 256
OWN = Windows(sequences=3, sequence_length=8, seed=1)


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


def test_a_tokenizer_that_frames_cuts_and_pads_texts_does_so_with_no_document(tokenizer, text, tmp_path):
    """Llama's puts a token before every text; some were saved as they cut and padded the texts of their training."""
    framing, framed = PreTrainedTokenizerFast.from_pretrained(tokenizer), tmp_path / "framed"
    backend = framing.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", END)])
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    framing.save_pretrained(framed)
    plain, whole = (calibrate(Wish(text), OWN, each, None).tokens.tokens for each in (tokenizer, framed))
    assert torch.equal(whole, plain)


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
        return "".join(each.text for each in excerpts._choose(letters, characters, seed))

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

    as_it_is = excerpts._joined
    monkeypatch.setattr(excerpts, "_joined", joined)
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


def test_too_little_text_is_refused(tokenizer, tmp_path):
    (tmp_path / "short.txt").write_text("a few words")
    with pytest.raises(CoolbitsError, match="3 sequences of 8 tokens are wanted, there are 1"):
        calibrate(Wish(str(tmp_path / "short.txt")), OWN, tokenizer, None)
