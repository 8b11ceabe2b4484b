"""A corpus holds each document once, on one side, wherever it stood, in the same bytes every time."""

import tracemalloc
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coolbits.data.corpus as stage
from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import describe_files
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.data.corpus import build_corpus, split_of
from coolbits.data.documents import count_documents, read_documents, read_rows, read_sizes
from coolbits.data.sources import EMBEDDED
from coolbits.study.recipes.data import Corpus, EmbeddedSource


@pytest.fixture
def build(source_of, tmp_path):
    """A function from texts to a corpus directory and its summary."""
    built = iter(range(100))

    def make(texts: list[str], fraction: float = 0.4, salt: str = "coolbits") -> tuple[Path, dict]:
        source, locations = source_of("made.jsonl", texts)
        out = tmp_path / f"corpus-{next(built)}"
        out.mkdir()
        return out, build_corpus(Corpus(source=source, validation_fraction=fraction, salt=salt), locations, out)

    return make


def sides(directory: Path) -> tuple[list[str], list[str]]:
    return list(read_documents(directory, "train")), list(read_documents(directory, "validation"))


TEXTS = [f"document {number}" for number in range(60)]


def test_every_document_is_on_exactly_one_side(build):
    directory, summary = build(TEXTS)
    train, validation = sides(directory)
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(TEXTS)
    assert (summary["train_documents"], summary["validation_documents"]) == (len(train), len(validation))
    assert summary["bytes"] == sum(map(len, TEXTS))


def test_repeats_are_dropped_wherever_they_stand(build):
    directory, summary = build([*TEXTS, *TEXTS[::-1], TEXTS[0]])
    train, validation = sides(directory)
    assert sorted(train + validation) == sorted(TEXTS)
    assert summary["duplicates"] == len(TEXTS) + 1
    assert summary["documents"] == len(TEXTS)


def test_blank_documents_are_left_out(build):
    directory, summary = build([*TEXTS, "", " \n", "\u00a0\u3000\u2003"])
    assert summary["blank"] == 3
    assert count_documents(directory) == len(TEXTS)


def test_the_order_of_the_source_is_kept(build):
    train, validation = sides(build(TEXTS)[0])
    assert train == [text for text in TEXTS if text in set(train)]
    assert validation == [text for text in TEXTS if text in set(validation)]


def test_a_document_keeps_its_side_when_order_and_company_change(build):
    train, _ = sides(build(TEXTS)[0])
    other_train, _ = sides(build([*reversed(TEXTS[:40]), "a newcomer"])[0])
    assert set(train) & set(TEXTS[:40]) == set(other_train) & set(TEXTS)


def test_another_salt_gives_another_split(build):
    assert sides(build(TEXTS)[0]) != sides(build(TEXTS, salt="other")[0])


@given(st.binary(), st.text(), st.floats(0.01, 0.99))
def test_a_larger_fraction_only_adds_to_validation(text, salt, fraction):
    if split_of(text, salt, fraction) == "validation":
        assert split_of(text, salt, (1 + fraction) / 2) == "validation"
    else:
        assert split_of(text, salt, fraction / 2) == "train"


def test_the_share_held_out_is_the_fraction_asked_for():
    held_out = sum(split_of(str(number).encode(), "coolbits", 0.1) == "validation" for number in range(20_000))
    assert abs(held_out / 20_000 - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5


def test_the_same_recipe_gives_the_same_bytes(build):
    assert describe_files(build(TEXTS)[0]) == describe_files(build(TEXTS)[0])


def test_the_artifact_holds_pieces_and_nothing_else(build, monkeypatch):
    monkeypatch.setattr(stage, "_GROUP_CHARACTERS", 100)
    monkeypatch.setattr(stage, "_PIECE_GROUPS", 2)
    directory, _ = build(TEXTS)
    names = sorted(path.name for path in directory.iterdir())
    assert names == [f"documents-{number:05d}.parquet" for number in range(len(names))]
    assert len(names) > 2
    assert sorted(chain(*sides(directory))) == sorted(TEXTS)
    assert pq.read_schema(directory / names[0]).names == ["id", "split", "source", "text"]
    assert {row["source"] for row in read_rows(directory, "train", ["source"])} == {"made.jsonl"}


def test_sizes_are_bytes_of_text_by_id(build):
    directory, _ = build([*TEXTS, "naïve — 日本"])
    for split in ("train", "validation"):
        rows = read_rows(directory, split, ["id", "text"])
        assert list(read_sizes(directory, split)) == [(row["id"], len(row["text"].encode())) for row in rows]


def test_an_empty_source_is_refused(build):
    with pytest.raises(CoolbitsError, match=r"data\.corpus: no document that is not blank in "):
        build(["", "  "])


@pytest.mark.parametrize(("fraction", "split"), [(1e-9, "validation"), (1 - 1e-9, "train")])
def test_an_empty_side_is_refused(build, fraction, split):
    with pytest.raises(CoolbitsError, match=rf"validation_fraction: at .* none of 60 documents is in {split}"):
        build(TEXTS, fraction)


def test_a_directory_without_pieces_and_a_damaged_piece_are_refused(build, tmp_path):
    with pytest.raises(CoolbitsError, match="so this is no corpus"):
        list(read_documents(tmp_path, "train"))
    directory, _ = build(TEXTS)
    piece = directory / "documents-00000.parquet"
    whole, page = piece.read_bytes(), pq.read_metadata(piece).row_group(0).column(3).data_page_offset
    for content in (whole[:-20], whole[:page] + bytes(20) + whole[page + 20 :]):
        piece.write_bytes(content)
        with pytest.raises(CoolbitsError, match=r"documents-00000\.parquet: not a readable piece"):
            list(read_documents(directory, "train"))


def test_memory_does_not_grow_with_the_corpus(source_of, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_GROUP_CHARACTERS", 20_000)

    def peak(count: int) -> int:
        source, locations = source_of("made.jsonl", [f"{number} " + "x" * 1000 for number in range(count)])
        out = tmp_path / str(count)
        out.mkdir()
        tracemalloc.start()
        build_corpus(Corpus(source=source, validation_fraction=0.1), locations, out)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(9000) < 1.1 * peak(3000)


def test_the_stage_makes_the_embedded_corpus_once(tmp_path):
    recipe = Corpus(source=EmbeddedSource(sha256=file_digest(EMBEDDED)), validation_fraction=0.05)
    node = make_node("corpus", "english", recipe.identity(), {})
    store = Store(tmp_path, code_slice("coolbits.data.corpus"))
    job = Job("corpus", "english", (node,))
    assert [stage.run(job, store), stage.run(job, store)] == [1, 0]
    train, validation = sides(node.directory(tmp_path))
    assert len(train) + len(validation) == 1375
    assert 40 <= len(validation) <= 100
    assert not set(train) & set(validation)
