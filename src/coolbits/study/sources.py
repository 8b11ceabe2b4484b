"""From the study's `data` to the nodes corpus, tokenizer and shards."""

from dataclasses import dataclass, replace
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.data.local_tokenizer import local_files
from coolbits.study.data_choices import (
    SUFFIXES,
    Data,
    EmbeddedCorpus,
    FileCorpus,
    HubCorpus,
    HubTokenizer,
    LocalTokenizer,
    TokenizerChoice,
)
from coolbits.study.recipes import data as recipes

_KNOWN_VOCABULARIES = {"EleutherAI/gpt-neox-20b": 50_304, "gpt2": 50_257}
EMBEDDED = Path(__file__).resolve().parents[1] / "data" / "english.jsonl.xz"


@dataclass(frozen=True)
class DataNodes:
    """The three nodes, where their sources lie, and how many rows a model's embedding has.

    A study of pretrained models alone has no tokenizer of its own: then the corpus is the only node.
    """

    nodes: tuple[Node, ...]
    locations: dict[str, list[str]]
    vocabulary_size: int

    @property
    def corpus(self) -> Ref:
        """The corpus as a parent."""
        return self.nodes[0].ref

    @property
    def parents(self) -> dict[str, Ref]:
        """What a trajectory needs: `shards` and `tokenizer`."""
        return {"shards": self.nodes[2].ref, "tokenizer": self.nodes[1].ref}

    def read_by(self, tokenizer: Node, shard_tokens: int) -> "DataNodes":
        """Return the same corpus in the tokens of another tokenizer."""
        corpus = self.nodes[0]
        shards = make_node(
            "shards",
            f"{_label(corpus)}-{_label(tokenizer)}",
            recipes.Shards(shard_tokens=shard_tokens).identity(),
            {"corpus": corpus.ref, "tokenizer": tokenizer.ref},
        )
        return replace(self, nodes=(corpus, tokenizer, shards))


def data_nodes(data: Data, folder: Path) -> DataNodes:
    """Resolve sources to digests; relative paths start at `folder`. Without a tokenizer there is the corpus alone.

    Raises:
        CoolbitsError: if a file is missing.
    """
    source: recipes.Source
    paths: list[Path]
    if isinstance(data.corpus, EmbeddedCorpus):
        source, label, paths = recipes.EmbeddedSource(sha256=file_digest(EMBEDDED)), "english", []
    else:
        source, label, paths = text_source(data.corpus, folder, "data.corpus.paths")
    locations = {"files": [str(path) for path in paths]} if paths else {}
    recipe = recipes.Corpus(source=source, validation_fraction=data.validation_fraction, salt=data.salt)
    corpus = make_node("corpus", label, recipe.identity(), {})
    if data.tokenizer is None:
        return DataNodes((corpus,), locations, 0)
    tokenizer = _tokenizer(data.tokenizer, folder, corpus.ref, locations)
    return DataNodes((corpus,), locations, _vocabulary_size(data.tokenizer)).read_by(tokenizer, data.shard_tokens)


def text_source(
    choice: FileCorpus | HubCorpus, folder: Path, key: str
) -> tuple[recipes.FileSource | recipes.HubSource, str, list[Path]]:
    """Return documents by digest or by the hub's id, a label, and where the files lie; `key` names them in the study.

    Raises:
        CoolbitsError: if a file is missing.
    """
    if isinstance(choice, FileCorpus):
        paths = [_existing(folder / path, key) for path in choice.paths]
        for path in paths:
            if not path.name.endswith(SUFFIXES):
                raise CoolbitsError(f"{key}: {path.name} ends in none of {', '.join(SUFFIXES)}")
        names, digests = tuple(path.name for path in paths), tuple(file_digest(path) for path in paths)
        source = recipes.FileSource(names=names, sha256=digests, text_field=choice.text_field)
        return source, slug(paths[0].stem), paths
    label = slug("-".join(filter(None, (choice.id.rpartition("/")[2], choice.config))))
    return recipes.HubSource(**choice.model_dump()), label, []


def _tokenizer(choice: TokenizerChoice, folder: Path, corpus: Ref, locations: dict[str, list[str]]) -> Node:
    tokenizer: recipes.Tokenizer
    parents: dict[str, Ref] = {}
    if isinstance(choice, HubTokenizer):
        tokenizer, label = recipes.HubTokenizer(id=choice.id, revision=choice.revision), choice.id.rpartition("/")[2]
    elif isinstance(choice, LocalTokenizer):
        directory = folder / choice.path
        _existing(directory / "tokenizer.json", "data.tokenizer.path")
        locations["tokenizer"] = [str(directory.resolve())]
        names = local_files(directory)
        digests = tuple(file_digest(directory / name) for name in names)
        tokenizer, label = recipes.LocalTokenizer(names=names, sha256=digests), directory.name
    else:
        tokenizer = recipes.TrainedTokenizer(**choice.model_dump())
        label, parents = f"bpe{choice.vocabulary_size}", {"corpus": corpus}
    recipe = recipes.TokenizerRecipe(tokenizer=tokenizer).identity()
    return make_node("tokenizer", slug(label), recipe, parents)


def _vocabulary_size(choice: TokenizerChoice) -> int:
    """Return the rows of the embedding; public models round their tokenizer's size up, so it is not counted."""
    size = choice.vocabulary_size
    if size is None and isinstance(choice, HubTokenizer):
        size = _KNOWN_VOCABULARIES.get(choice.id)
    if size is None:
        raise CoolbitsError(
            "data.tokenizer.vocabulary_size: missing; it is known only for " + ", ".join(_KNOWN_VOCABULARIES)
        )
    return size


def _existing(path: Path, key: str) -> Path:
    try:
        if path.is_file():
            return path.absolute()  # under the name that the study gives, which a link's target may not have
    except OSError as error:
        raise CoolbitsError(f"{key}: {str(path)[:80]!r} is no path ({error.strerror})") from None
    raise CoolbitsError(f"{key}: {path} is no file")


def _label(node: Node) -> str:
    return node.name.rpartition("-")[0]


def slug(text: str) -> str:
    """Return text as a part of a node's name: letters, digits and dashes, at most 40 bytes."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
    return plain.encode()[:40].decode(errors="ignore") or "data"
