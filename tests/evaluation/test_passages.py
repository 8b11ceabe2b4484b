"""Questions from held-out text: only from there, decided by the seed alone, and answerable by reading."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from coolbits.evaluation.passages import Paragraph, choice_rows, cloze_rows, held_out_paragraphs


@pytest.fixture(scope="module")
def held_out(corpus) -> list[Paragraph]:
    return list(held_out_paragraphs(corpus))


def many_paragraphs(count: int, source: str = "one") -> list[Paragraph]:
    return [Paragraph(source, " ".join(f"w{number}x{place}" for place in range(33))) for number in range(count)]


def test_only_validation_documents_are_read(corpus, held_out):
    frame = pd.read_parquet(corpus / "documents-00000.parquet")
    validation = "\n".join(frame["text"][frame["split"] == "validation"])
    assert len(held_out) == len(validation.splitlines())
    assert all(paragraph.text in validation for paragraph in held_out)
    assert not any(word.startswith("x") for paragraph in held_out for word in paragraph.text.split())


def test_a_repeated_paragraph_counts_once(tmp_path):
    rows = [("validation", "one", "a b\nc d\na b"), ("validation", "one", "c d"), ("train", "one", "e f")]
    frame = pd.DataFrame(rows, columns=["split", "source", "text"]).assign(id="0")
    frame[["id", "split", "source", "text"]].to_parquet(tmp_path / "documents-00000.parquet", index=False)
    assert [paragraph.text for paragraph in held_out_paragraphs(tmp_path)] == ["a b", "c d"]


def test_cloze_asks_for_the_word_that_follows_8_others(held_out):
    texts = [paragraph.text for paragraph in held_out]
    rows = cloze_rows(held_out, None, seed=0)
    assert 0.8 * len(texts) < len(rows) <= len(texts)
    for row in rows:
        assert len(row["context"].split()) == 8
        assert row["target"][0] == " "
        assert row["target"][1:].isalpha()
        assert any(row["context"] + row["target"] in text for text in texts)


def test_cloze_passes_over_words_that_are_not_letters_alone():
    words = [f"word{number}" for number in range(9)] + ["well-known", "'tis", "plain,", "later"]
    (row,) = cloze_rows([Paragraph("one", " ".join(words))], None, seed=0)
    assert row["target"] == " plain"
    assert row["context"].split() == words[3:11]


def test_cloze_fits_64_tokens_of_any_tokenizer():
    """Of bytes, say: a paragraph is asked at the first place where its words are short enough, or not at all."""
    long, short = ["elephantine"] * 8, ["war"] * 8
    (row,) = cloze_rows([Paragraph("one", " ".join(long + short))], None, seed=0)
    assert row == {"context": " ".join(long[:3] + short[:5]), "target": " war"}
    assert len(row["context"] + row["target"]) == 59
    two_bytes_a_letter = " ".join(["\u00e4" * 6] * 8 + ["war"])
    assert cloze_rows([Paragraph("one", two_bytes_a_letter)], None, seed=0) == []


def test_choice_has_one_true_opening_of_four_from_one_source(held_out):
    by_source = {
        source: " | ".join(each.text for each in held_out if each.source == source) for source in ["one", "two"]
    }
    rows = choice_rows(held_out, None, seed=0)
    asked = [each.text.split()[8:16] for each in held_out if each.source != "three"]
    assert len(rows) == sum(len(words) == 8 and len(" ".join(words)) <= 60 for words in asked)
    for row in rows:
        texts = by_source["one" if row["continuation"][0] == "a" else "two"]
        assert len(set(row["contexts"])) == 4
        assert all(context in texts for context in row["contexts"])
        true = [f"{context} {row['continuation']}" in texts for context in row["contexts"]]
        assert np.flatnonzero(true).tolist() == [row["answer"]]
        assert {len(text.split()) for text in (*row["contexts"], row["continuation"])} == {8}


def test_a_continuation_fits_into_a_context_of_64_tokens_of_any_tokenizer():
    long_words = [Paragraph("one", " ".join(["a"] * 8 + [f"{number}{'long' * 4}"] * 8)) for number in range(8)]
    short_words = many_paragraphs(5)
    assert len(choice_rows([*long_words, *short_words], None, seed=0)) == 5
    assert all(len(row["continuation"].encode()) <= 60 for row in choice_rows(short_words, None, seed=0))


def test_small_sources_are_taken_together():
    lonely = [Paragraph(f"file-{number}", each.text) for number, each in enumerate(many_paragraphs(5))]
    assert len(choice_rows(lonely, None, seed=0)) == 5
    assert choice_rows(lonely[:3], None, seed=0) == []


def test_the_true_opening_stands_anywhere():
    places = Counter(row["answer"] for row in choice_rows(many_paragraphs(800), None, seed=0))
    assert sorted(places) == [0, 1, 2, 3]
    quarter = places.total() / 4
    assert all(abs(count - quarter) < 5 * (0.75 * quarter) ** 0.5 for count in places.values())


@pytest.mark.parametrize("make", [cloze_rows, choice_rows])
def test_rows_depend_on_the_seed_and_not_on_the_order_of_documents(make, held_out):
    assert make(held_out, None, seed=1) == make(reversed(held_out), None, seed=1)
    assert make(held_out, None, seed=1) != make(held_out, None, seed=2)


def test_a_limit_keeps_the_first_of_all_rows(held_out):
    assert cloze_rows(held_out, 7, seed=0) == cloze_rows(held_out, None, seed=0)[:7]
    assert len(choice_rows(many_paragraphs(50), 9, seed=0)) == 9
