"""Documents come out of every kind of file as they went in, and what is wrong is said with file, row and key."""

import gzip
import json
import lzma
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data import formats
from coolbits.data.hub import download_tokenizer
from coolbits.data.sources import EMBEDDED, open_documents
from coolbits.study.recipes.data import EmbeddedSource, FileSource, HubSource, HubTokenizer

TEXTS = ["one line", "two\nlines", "café — 日本"]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def parquet(tmp_path: Path, values: pa.Array) -> bytes:
    path = tmp_path / "made-here"
    pq.write_table(pa.table({"text": values}), path)
    return path.read_bytes()


def read(source_of, name: str, content: bytes) -> list[tuple[str, str]]:
    source, locations = source_of(name, content)
    documents = open_documents(source, [Path(location) for location in locations])
    return [(document.source, document.text) for document in documents.items]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", lines),
        ("a.jsonl.gz", lambda texts: gzip.compress(lines(texts))),
        ("a.json.gz", lambda texts: gzip.compress(lines(texts[:1])) + gzip.compress(lines(texts[1:]))),
        ("a.jsonl.xz", lambda texts: lzma.compress(lines(texts))),
        ("a.jsonl.xz", lambda texts: lzma.compress(lines(texts[:1])) + bytes(8) + lzma.compress(lines(texts[1:]))),
        ("a.jsonl.xz", lambda texts: lzma.compress(lines(texts)) + bytes(formats._PACKED_BYTES)),
        ("a.jsonl.zst", lambda texts: zstd(lines(texts))),
        ("a.jsonl.zst", lambda texts: zstd(lines(texts[:1])) + zstd(lines(texts[1:]))),
    ],
    ids=["plain", "gz", "gz twice", "xz", "xz twice", "xz and zeros", "zst", "zst twice"],
)
def test_json_lines_are_read_packed_or_not(source_of, name, pack):
    assert read(source_of, name, pack(TEXTS)) == [(name, text) for text in TEXTS]


def test_parquet_is_read_row_by_row(source_of, tmp_path):
    texts = [f"document {number}" for number in range(1000)]
    assert [text for _, text in read(source_of, "a.parquet", parquet(tmp_path, pa.array(texts)))] == texts


def test_a_text_file_is_one_document(source_of):
    assert read(source_of, "a.txt", "two\nlines é".encode()) == [("a.txt", "two\nlines é")]


def test_blank_lines_between_rows_are_skipped(source_of):
    assert len(read(source_of, "a.jsonl", lines(TEXTS).replace(b"\n", b"\n\n"))) == len(TEXTS)


def test_the_last_document_reaches_the_end_of_all_files(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(TEXTS))
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    source = FileSource(names=("a.jsonl", "b.jsonl"), sha256=tuple(map(file_digest, paths)))
    documents = open_documents(source, paths)
    reached = [document.reached for document in documents.items]
    assert reached == sorted(reached)
    assert reached[-1] == documents.total == sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b"fine\nbad \xff byte", r"a\.txt, line 2: not valid UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": "\xff"}\n', r"a\.jsonl, line 2: not valid UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl, line 1: the key `text` is not valid UTF-8"),
        (
            "a.jsonl",
            b'{"text": "fine"}\n{"body": "x", "id": 3}\n',
            r"line 2: there is no key `text`, only `body`, `id`",
        ),
        ("a.jsonl", b'{"text": 3}\n', r"line 1: the key `text` holds a number, not text"),
        ("a.jsonl", b'["text"]\n', r"line 1: holds a list; keys and values are expected"),
        ("a.jsonl", b'{"text": \n', r"line 1: not JSON"),
        (
            "a.jsonl.gz",
            gzip.compress(lines(TEXTS), mtime=0)[:-9],
            r"a\.jsonl\.gz: the packed data is damaged after line \d",
        ),
        ("a.jsonl.gz", lines(TEXTS), r"a\.jsonl\.gz: the packed data is damaged after line 0"),
        ("a.jsonl.xz", lzma.compress(lines(TEXTS))[:-9], r"a\.jsonl\.xz: the packed data is damaged after line \d"),
        (
            "a.jsonl.xz",
            lzma.compress(lines(TEXTS)) + b"garbage!",
            r"a\.jsonl\.xz: the packed data is damaged after line 3",
        ),
        *(
            (f"a.{suffix}", b"", r"a\.\S+: the packed data is damaged after line 0 \(it is empty")
            for suffix in ("jsonl.gz", "jsonl.xz", "jsonl.zst")
        ),
        (
            "a.jsonl.zst",
            zstd(lines(TEXTS))[:-3],
            r"a\.jsonl\.zst: the packed data is damaged after line \d \(Truncated",
        ),
        ("a.jsonl.zst", zstd(lines(TEXTS)) + b"more", r"a\.jsonl\.zst: the packed data is damaged after line \d"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet: not a readable parquet file"),
        ("a.csv", b"text\nx\n", r"a\.csv: a\.csv has none of the suffixes \.txt, \.jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(source_of, name, content, complaint):
    with pytest.raises(CoolbitsError, match=complaint):
        read(source_of, name, content)


def test_a_document_too_long_for_a_corpus_is_refused_by_its_place_before_it_fails_there(source_of, monkeypatch):
    monkeypatch.setattr(formats, "_MOST_BYTES", 6)
    assert read(source_of, "a.jsonl", lines(["six by"])) == [("a.jsonl", "six by")]
    said = r"a\.jsonl, line 2: the key `text` holds 7 bytes of text, but a document may have 6 at most"
    with pytest.raises(CoolbitsError, match=said):
        read(source_of, "a.jsonl", lines(["six by", "ninéte"]))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (pa.array(["fine", None]), r"a\.parquet, row 2: the key `text` holds nothing"),
        (pa.array([1, 2]), r"a\.parquet, row 1: the key `text` holds a number"),
        (pa.array([b"fine", b"\xff"]).view(pa.string()), r"a\.parquet, row 2: the column `text` is not valid UTF-8"),
    ],
)
def test_a_bad_parquet_cell_is_refused_by_row(source_of, tmp_path, values, complaint):
    with pytest.raises(CoolbitsError, match=complaint):
        read(source_of, "a.parquet", parquet(tmp_path, values))


def test_a_parquet_file_with_a_damaged_page_is_refused(source_of, tmp_path):
    """Its footer is whole, so that nothing is wrong before the page is read."""
    content = bytearray(parquet(tmp_path, pa.array([f"document {number}" for number in range(1000)])))
    content[20:40] = bytes(20)
    with pytest.raises(CoolbitsError, match=r"a\.parquet: not a readable parquet file \("):
        read(source_of, "a.parquet", bytes(content))


def test_a_missing_parquet_column_is_refused_with_those_there(source_of, tmp_path):
    source, locations = source_of("a.parquet", parquet(tmp_path, pa.array(TEXTS)))
    with pytest.raises(CoolbitsError, match="there is no column `body`, only `text`"):
        list(open_documents(source.model_copy(update={"text_field": "body"}), [Path(locations[0])]).items)


def test_another_file_than_the_recipe_names_is_refused(source_of):
    source, locations = source_of("a.jsonl", lines(TEXTS))
    Path(locations[0]).write_bytes(lines(TEXTS[:1]))
    with pytest.raises(CoolbitsError, match=r"a\.jsonl: its SHA-256 is \w{64}, but the recipe's `sha256` is"):
        open_documents(source, [Path(locations[0])])


def test_a_missing_file_and_a_missing_location_are_refused(source_of, tmp_path):
    source, _ = source_of("a.jsonl", lines(TEXTS))
    with pytest.raises(CoolbitsError, match=r"gone\.jsonl: no such file"):
        open_documents(source, [tmp_path / "gone.jsonl"])
    with pytest.raises(CoolbitsError, match=r"locations\.files: 0 paths for the 1 source files"):
        open_documents(source, [])


def test_a_file_source_needs_a_digest_a_file():
    with pytest.raises(ValidationError, match="2 names but 1 digests"):
        FileSource(names=("a.txt", "b.txt"), sha256=("0" * 64,))


def test_the_embedded_corpus_is_the_one_its_table_describes():
    documents = list(open_documents(EmbeddedSource(sha256=file_digest(EMBEDDED)), []).items)
    assert len(documents) == 1375
    assert {document.source for document in documents} >= {"austen", "shakespeare", "moby-dick", "sqlite-docs"}
    assert documents[-1].reached == EMBEDDED.stat().st_size
    with pytest.raises(CoolbitsError, match=r"english\.jsonl\.xz: its SHA-256 is"):
        open_documents(EmbeddedSource(sha256="0" * 64), [])


@pytest.fixture
def hub_dataset(tmp_path, monkeypatch) -> str:
    """A dataset directory, which the library opens like one on the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "train.jsonl").write_bytes(lines(TEXTS))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: one\n  data_files: train.jsonl\n"
        "- config_name: two\n  data_files: train.jsonl\n---\n"
    )
    return str(tmp_path)


def test_a_hub_dataset_is_streamed(hub_dataset):
    documents = open_documents(HubSource(id=hub_dataset, config="one", documents=2), [])
    assert documents.total == 2
    assert [document.text for document in documents.items] == TEXTS[:2]


def test_what_a_hub_dataset_packs_by_zstd_is_streamed_and_missed_where_it_is_cut(hub_dataset):
    packed = zstd(lines([f"document {number}" for number in range(9999)]))
    (Path(hub_dataset) / "train.jsonl").rename(Path(hub_dataset) / "train.jsonl.zst")
    readme = Path(hub_dataset) / "README.md"
    readme.write_text(readme.read_text().replace("train.jsonl", "train.jsonl.zst"))
    source = HubSource(id=hub_dataset, config="one")
    (Path(hub_dataset) / "train.jsonl.zst").write_bytes(packed)
    assert len(list(open_documents(source, []).items)) == 9999
    (Path(hub_dataset) / "train.jsonl.zst").write_bytes(packed[:-9])
    with pytest.raises(CoolbitsError, match=r"\(.*Truncated compressed stream"):
        list(open_documents(source, []).items)


def test_a_dataset_whose_card_cannot_be_read_is_refused(hub_dataset):
    (Path(hub_dataset) / "README.md").write_text("---\n[\n---\n")
    with pytest.raises(CoolbitsError, match=r"cannot be opened \(while parsing"):
        open_documents(HubSource(id=hub_dataset), [])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"config": "three"}, "there is no configuration `three` .*'one', 'two'"),
        ({"config": None}, "there is no configuration `None` .*'one', 'two'"),
        ({"split": "test"}, r"there is no split `test` .*\['train'\]"),
        ({"text_field": "body"}, "row 1: there is no key `body`, only `text`"),
        ({"id": "nobody/nothing"}, "the Hugging Face hub cannot be reached"),
    ],
)
def test_reasons_of_the_hub_are_told_apart(hub_dataset, changes, complaint):
    source = HubSource(**({"id": hub_dataset, "config": "one"} | changes))
    with pytest.raises(CoolbitsError, match=complaint):
        list(open_documents(source, []).items)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.", "a/b: there is no such dataset, or it needs"),
        ("Revision 'old' doesn't exist for dataset 'a/b' on the Hub.", "a/b: there is no revision `old`"),
    ],
)
def test_a_missing_dataset_and_a_missing_revision_are_told_apart(monkeypatch, said, complaint):
    def refuse(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError(said)

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(CoolbitsError, match=complaint):
        open_documents(HubSource(id="a/b", revision="old"), [])


def test_a_stream_that_breaks_off_says_where(hub_dataset):
    (Path(hub_dataset) / "train.jsonl").write_bytes(lines(TEXTS) + b'{"text": ')
    with pytest.raises(CoolbitsError, match="the stream broke off after row"):
        list(open_documents(HubSource(id=hub_dataset, config="one"), []).items)


def test_a_tokenizer_out_of_reach_is_told_from_one_that_cannot_exist(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CoolbitsError, match="tokenizer nobody/nothing: the Hugging Face hub cannot be reached"):
        download_tokenizer(HubTokenizer(id="nobody/nothing"))
    with pytest.raises(CoolbitsError, match="tokenizer not//an id: there is no such repository"):
        download_tokenizer(HubTokenizer(id="not//an id"))
