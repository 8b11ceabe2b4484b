"""Tokenizers keep every byte, learn from training documents only, and come out the same every time."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import coolbits.data.tokenizers as stage
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import describe_files
from coolbits.data.corpus import build_corpus
from coolbits.data.documents import read_documents
from coolbits.data.local_tokenizer import local_files
from coolbits.data.tokenizers import END_OF_TEXT, build_tokenizer, load_tokenizer, training_texts, vocabulary_size
from coolbits.study.recipes.data import (
    Corpus,
    HubTokenizer,
    LocalTokenizer,
    PretrainedTokenizer,
    TrainedTokenizer,
)


def as_it_is(directory: Path) -> LocalTokenizer:
    """Return the recipe of a local tokenizer as its files are now."""
    names = local_files(directory)
    return LocalTokenizer(names=names, sha256=tuple(file_digest(directory / name) for name in names))


def size_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def test_every_entry_and_every_special_token_is_where_it_should_be(tokenizer):
    opened = AutoTokenizer.from_pretrained(tokenizer)
    assert len(opened) == vocabulary_size(opened) == 300
    assert opened.convert_tokens_to_ids(END_OF_TEXT) == 0
    assert {opened.eos_token_id, opened.bos_token_id, opened.pad_token_id, opened.unk_token_id} == {0}


@pytest.mark.parametrize("text", ["plain words", " two  spaces\n\ttab", "naïve café — 日本 🙂", "\x00\x7f\u200b", ""])
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    opened = load_tokenizer(tokenizer)
    assert opened.decode(opened.encode(text, add_special_tokens=False)) == text


def test_the_same_recipe_gives_the_same_bytes(corpus, tokenizer, tmp_path):
    summary = build_tokenizer(TrainedTokenizer(vocabulary_size=300), corpus, None, tmp_path)
    assert summary == {"vocabulary_size": 300, "end_of_text_id": 0}
    assert describe_files(tmp_path) == describe_files(tokenizer)


def test_no_path_of_this_machine_is_in_the_files(tokenizer, tmp_path):
    build_tokenizer(as_it_is(tokenizer), None, tokenizer, tmp_path)
    for directory in (tokenizer, tmp_path):
        assert not any(str(tokenizer.parent) in path.read_text() for path in directory.iterdir())


@pytest.mark.parametrize("more", [0, 1, 10**9])
def test_a_limit_that_covers_the_training_documents_takes_them_all_and_no_others(corpus, more):
    train = list(read_documents(corpus, "train"))
    assert list(training_texts(corpus, size_of(train) + more)) == train


def test_less_text_fills_the_limit_with_whole_documents_from_everywhere_and_one_that_is_cut(corpus):
    train = list(read_documents(corpus, "train"))
    limit = size_of(train) // 3
    taken = list(training_texts(corpus, limit))
    assert limit - 3 <= size_of(taken) <= limit  # a character may have four bytes
    places = [next(place for place, text in enumerate(train) if text.startswith(found)) for found in taken]
    assert places == sorted(places)
    assert min(places) < len(train) / 4 < 3 * len(train) / 4 < max(places)
    assert sum(found != train[place] for found, place in zip(taken, places, strict=True)) <= 1


def test_a_document_is_cut_between_characters(corpus):
    whole, *none = training_texts(corpus, 10)
    assert not none
    for limit in range(1, 60):
        (cut,) = training_texts(corpus, limit)
        assert cut[:5] == whole[:5][: len(cut)]
        assert limit - 3 <= size_of([cut]) <= limit


def test_documents_longer_than_the_limit_are_drawn_like_others(source_of, tmp_path):
    books = [f"book {number} " + "long " * 6000 for number in range(40)]
    scraps = [f"scrap {number} " + "short " * 30 for number in range(400)]
    source, locations = source_of("made.jsonl", books + scraps)
    build_corpus(Corpus(source=source, validation_fraction=0.05), locations, tmp_path)
    taken = list(training_texts(tmp_path, 25_000))
    assert size_of(taken) == 25_000
    assert size_of([text for text in taken if text.startswith("book")]) > 12_500  # they have 94 % of the bytes


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(corpus, tmp_path):
    with pytest.raises(CoolbitsError, match=r"tokenizer\.vocabulary_size: the training text gives \d+ entries of 9000"):
        build_tokenizer(TrainedTokenizer(vocabulary_size=9000), corpus, None, tmp_path)


def test_code_of_a_tokenizers_own_is_not_run_and_nobody_is_asked(tokenizer, tmp_path, monkeypatch):
    own = shutil.copytree(tokenizer, tmp_path / "own")
    settings = json.loads((own / "tokenizer_config.json").read_text())
    code = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer"] * 2}}
    (own / "tokenizer_config.json").write_text(json.dumps(settings | code))
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("somebody is asked"))
    with pytest.raises(CoolbitsError, match=r"own: the tokenizer cannot be opened \(.* contains custom code"):
        load_tokenizer(own)


def test_a_local_tokenizer_is_taken_over(tokenizer, tmp_path):
    own = shutil.copytree(tokenizer, tmp_path / "own")
    (own / "chat_template.jinja").write_text("{{ messages[0].content }}")
    out = tmp_path / "out"
    assert build_tokenizer(as_it_is(own), None, own, out) == {"vocabulary_size": 300, "end_of_text_id": 0}
    text = "the cool bits"
    assert load_tokenizer(out).encode(text) == load_tokenizer(tokenizer).encode(text)
    assert load_tokenizer(out).chat_template == "{{ messages[0].content }}"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path: path.write_text(" "), r"its SHA-256 is \w{64}, but the recipe's `sha256` is \w{64}"),
        (Path.unlink, "no such file"),
    ],
)
def test_a_local_tokenizer_of_which_a_file_changed_is_refused(tokenizer, tmp_path, name, spoil, complaint):
    own = shutil.copytree(tokenizer, tmp_path / "own")
    (own / "chat_template.jinja").write_text("{{ messages[0].content }}")
    recipe = as_it_is(own)
    spoil(own / name)
    with pytest.raises(CoolbitsError, match=f"own/{name}: {complaint}"):
        build_tokenizer(recipe, None, own, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "special_tokens_map.json", "config.json", "additional_chat_templates/tool.jinja"]
)
def test_a_local_tokenizer_with_one_more_file_is_refused(tokenizer, tmp_path, name):
    own = shutil.copytree(tokenizer, tmp_path / "own")
    recipe = as_it_is(own)
    (own / "README.md").write_text("What this is.")
    build_tokenizer(recipe, None, own, tmp_path / "out")
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_text("{}")
    with pytest.raises(CoolbitsError, match=f"own/{name}: not among the recipe's `names`"):
        build_tokenizer(recipe, None, own, tmp_path / "out")


def test_a_local_tokenizer_without_a_location_is_refused(tokenizer, tmp_path):
    with pytest.raises(CoolbitsError, match=r"locations\.tokenizer: missing"):
        build_tokenizer(as_it_is(tokenizer), None, None, tmp_path)


def test_a_directory_that_holds_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(CoolbitsError, match=r"there is no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CoolbitsError, match="the tokenizer cannot be opened"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_of_text_token_is_refused(tokenizer, tmp_path):
    nameless = tmp_path / "nameless"
    PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(tokenizer).backend_tokenizer).save_pretrained(nameless)
    with pytest.raises(CoolbitsError, match="the local tokenizer names no end-of-text token"):
        build_tokenizer(as_it_is(nameless), None, nameless, tmp_path)


def test_a_hub_tokenizer_is_saved_like_any_other(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "download_tokenizer", lambda recipe: tokenizer)
    summary = build_tokenizer(HubTokenizer(id="EleutherAI/gpt-neox-20b"), None, None, tmp_path)
    assert summary["commit"] is None  # a folder, but of no snapshot
    assert load_tokenizer(tmp_path).get_vocab() == load_tokenizer(tokenizer).get_vocab()


def test_the_commit_of_a_hub_tokenizer_is_kept(tokenizer, tmp_path, monkeypatch):
    snapshot = shutil.copytree(tokenizer, tmp_path / "snapshots" / ("0123456789" * 4))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    (tmp_path / "out").mkdir()
    summary = build_tokenizer(HubTokenizer(id="EleutherAI/gpt-neox-20b"), None, None, tmp_path / "out")
    assert summary["commit"] == snapshot.name


def test_the_vocabulary_reaches_to_the_largest_id_where_ids_have_gaps(tmp_path: Path):
    backend = Backend(models.BPE(vocab={"a": 0, "b": 7}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    assert vocabulary_size(PreTrainedTokenizerFast(tokenizer_object=backend)) == 8


def test_the_saved_config_names_a_fast_tokenizer(tokenizer):
    assert "tokenizer_class" in json.loads((tokenizer / "tokenizer_config.json").read_text())


def test_a_pretrained_models_tokenizer_is_its_own(tokenizer: Path, tmp_path: Path) -> None:
    summary = build_tokenizer(PretrainedTokenizer(), None, tokenizer, tmp_path)
    assert summary == {"vocabulary_size": 300, "end_of_text_id": 0}
    assert load_tokenizer(tmp_path).get_vocab() == load_tokenizer(tokenizer).get_vocab()


def test_the_end_of_text_may_be_another_token_than_the_tokenizer_says(tokenizer: Path, tmp_path: Path) -> None:
    own = load_tokenizer(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    own.eos_token = "<turn>"
    chat, asked = tmp_path / "chat", PretrainedTokenizer(end_of_text="<|endoftext|>")
    own.save_pretrained(chat)
    plain = build_tokenizer(PretrainedTokenizer(), None, chat, tmp_path / "plain")
    named = build_tokenizer(asked, None, chat, tmp_path / "named")
    assert (plain["end_of_text_id"], named["end_of_text_id"]) == (300, 0)
    assert load_tokenizer(tmp_path / "named").eos_token_id == 0
    with pytest.raises(CoolbitsError, match=r"tokenizer\.end_of_text: '<end>' is no token of"):
        build_tokenizer(PretrainedTokenizer(end_of_text="<end>"), None, chat, tmp_path / "other")
