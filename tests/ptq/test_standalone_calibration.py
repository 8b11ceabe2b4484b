"""Calibration from text that no study prepared."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.sources import EMBEDDED
from coolbits.ptq.standalone_calibration import Wish, calibrate
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import Documents, RandomTokens, Windows
from coolbits.study.recipes.data import FileSource

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


def test_windows_are_pieces_of_the_documents_end_to_end(tokenizer, text):
    drawn = calibrate(Wish(text), OWN, tokenizer, None)
    opened = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    stream = [token for number in range(40) for token in [*opened.encode(f"document {number}"), END]]
    whole = [stream[start : start + 8] for start in range(0, len(stream) - 7, 8)]
    windows = drawn.tokens.tokens.tolist()
    assert all(window in whole for window in windows)
    assert (len(windows), drawn.source, drawn.recipe) == (3, text, OWN)
    assert drawn.text_sha256 == file_digest(Path(text))


def test_the_seed_decides_which_windows(tokenizer, text):
    first, same, other = (calibrate(Wish(text, seed=seed), OWN, tokenizer, None).tokens.tokens for seed in (0, 0, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_only_as_many_documents_are_read_as_serve(tokenizer, tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "%s"}\nnot json\n' % ("long " * 200))
    assert calibrate(Wish(str(path)), OWN, tokenizer, None).tokens.count == 24
    with pytest.raises(CoolbitsError, match="line 2: not JSON"):
        calibrate(Wish(str(path), sequences=100), OWN, tokenizer, None)


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
    assert drawn.text_sha256 is None


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
