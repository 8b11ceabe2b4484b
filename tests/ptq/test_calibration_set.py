import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.shards import TokenStream, open_stream, write_shard
from coolbits.ptq import origins
from coolbits.ptq.calibration_set import build_calibration, draw_windows
from coolbits.ptq.tokens import TOKENS, read_tokens, write_tokens
from coolbits.study.recipes.calibration import CalibrationSet, Documents, RandomTokens, Windows
from coolbits.study.recipes.data import FileSource


@pytest.fixture
def stream(shards: Path) -> TokenStream:
    return open_stream(shards, "train")


def test_what_is_written_is_what_was_drawn(shards: Path, stream: TokenStream, tmp_path: Path) -> None:
    recipe = Windows(sequences=4, sequence_length=64)
    summary = build_calibration(CalibrationSet(calibration=recipe), {"shards": shards}, tmp_path)
    assert summary == {"sequences": 4, "tokens": 256}
    written, drawn = read_tokens(tmp_path), draw_windows(stream, recipe)
    assert torch.equal(written.tokens, drawn.tokens)
    assert written.whole


DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 10, 11, 12, 13, 0], [14, 15, 0], [16, 17, 18, 19, 0]]


def shards_of_documents(out: Path) -> Path:
    """Write the documents, the last two in a shard of their own; 0 is the end of text."""
    (out / "shards").mkdir()
    entries = []
    for number, documents in enumerate((DOCUMENTS[:3], DOCUMENTS[3:])):
        ids = np.concatenate(documents)
        header = write_shard(out / "shards" / f"train-{number:05d}.bin", [ids], 96)
        entries.append({"file": f"train-{number:05d}.bin", "tokens": ids.size, "sha256": header.digest})
    index = {"train": entries, "validation": [], "vocabulary_size": 96, "end_of_text_id": 0}
    (out / "shards" / "index.json").write_text(json.dumps(index))
    return out / "shards"


@pytest.mark.parametrize("length", [2, 3, 5, 20])
def test_every_window_says_where_in_which_shards_it_is(length: int, tmp_path: Path) -> None:
    """Taken again from there, they are the window."""
    recipe = Windows(sequences=20 // length, sequence_length=length)
    shards = shards_of_documents(tmp_path)
    build_calibration(CalibrationSet(calibration=recipe), {"shards": shards}, tmp_path)
    parts = {"train-00000.bin": DOCUMENTS[:3], "train-00001.bin": DOCUMENTS[3:]}
    shard = {name: np.concatenate(documents).tolist() for name, documents in parts.items()}
    again: list[list[int]] = [[] for _ in range(recipe.sequences)]
    for piece in pq.read_table(tmp_path / "documents.parquet").to_pylist():
        ids = shard[piece["source"]][piece["offset"] :][: piece["tokens"]]
        assert len(ids) == piece["tokens"] > 0
        assert (piece["document"], piece["id"]) == (None, None)
        again[piece["sequence"]] += ids
    assert again == read_tokens(tmp_path).tokens.tolist()


def test_the_file_of_tokens_is_the_one_that_it_was_without_the_documents(shards: Path, tmp_path: Path) -> None:
    """Its digest stands in records that were written before."""
    (tmp_path / "alone").mkdir()
    recipe = Windows(sequences=4, sequence_length=64)
    build_calibration(CalibrationSet(calibration=recipe), {"shards": shards}, tmp_path)
    write_tokens(draw_windows(open_stream(shards, "train"), recipe), tmp_path / "alone")
    assert (tmp_path / TOKENS).read_bytes() == (tmp_path / "alone" / TOKENS).read_bytes()


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A tokenizer that knows two letters, and gives no token for others."""
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "letters")
    return tmp_path / "letters"


def test_a_sequence_is_named_by_its_own_document_where_others_have_no_tokens(letters: Path, tmp_path: Path) -> None:
    """Texts of unknown letters alone, and blank ones, are no sequences."""
    texts = ["?", "ab", "", "?!", "bba", "a"]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source = FileSource(names=(file.name,), sha256=(file_digest(file),))
    recipe = Documents(kind="documents", source=source, sequences=2, sequence_length=2)
    build_calibration(CalibrationSet(calibration=recipe), {"tokenizer": letters}, tmp_path, [file])
    assert read_tokens(tmp_path).tokens.tolist() == [[0, 1], [1, 1]]
    found = origins.read_documents(tmp_path)
    assert found is not None
    for row, (piece, number) in enumerate(zip(found.to_pylist(), (1, 4), strict=True)):
        own = {"source": file.name, "document": number, "offset": 0, "id": identity(texts[number])}
        assert piece == {"sequence": row, "tokens": 2} | own


def identity(text: str) -> str:
    """Return the name of a document in a corpus."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_random_tokens_come_from_no_document(letters: Path, tmp_path: Path) -> None:
    recipe = RandomTokens(kind="random", sequences=2, sequence_length=2)
    build_calibration(CalibrationSet(calibration=recipe), {"tokenizer": letters}, tmp_path)
    assert origins.read_documents(tmp_path) is None


def test_a_table_that_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "documents.parquet").write_bytes(b"PAR1, but not quite")
    with pytest.raises(CoolbitsError, match=r"documents\.parquet: cannot be read as the documents of a calibration"):
        origins.read_documents(tmp_path)


def test_another_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"document": [1], "nats": [0.5]}), tmp_path / "documents.parquet")
    with pytest.raises(CoolbitsError, match=r"has the columns document, nats; .* have sequence \(int32\), tokens"):
        origins.read_documents(tmp_path)


def test_sequences_are_windows_of_the_training_split_drawn_once_each(stream: TokenStream) -> None:
    windows = torch.from_numpy(stream.read(0, 4096).astype("int64")).reshape(-1, 64)
    tokens = draw_windows(stream, Windows(sequences=64, sequence_length=64, seed=3)).tokens
    assert tokens.dtype == torch.int64
    assert sorted(tokens.tolist()) == sorted(windows.tolist())


def test_the_seed_decides_the_sequences(stream: TokenStream) -> None:
    first, again, other = (
        draw_windows(stream, Windows(sequences=8, sequence_length=64, seed=seed)).tokens for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_sequences_than_there_are_are_refused(stream: TokenStream) -> None:
    with pytest.raises(CoolbitsError, match="65 sequences of 64 tokens are wanted, the training split has 64"):
        draw_windows(stream, Windows(sequences=65, sequence_length=64))
