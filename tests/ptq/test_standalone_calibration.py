"""Calibration from text that no study prepared."""

import pytest
import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.data.sources import EMBEDDED
from coolbits.ptq.standalone_calibration import Wish, calibrate, check_heeded
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import Documents, RandomTokens, Windows
from coolbits.study.recipes.data import FileSource, HubSource
from coolbits.study.recipes.methods import GPTQ, RTN, Grid

END = 256
OWN = Windows(sequences=3, sequence_length=8, seed=1)


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
