"""From the study's `data` to the nodes corpus, tokenizer and shards."""

from dataclasses import dataclass
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.study.recipes import data as recipes
from coolbits.study.schema import Data, EmbeddedCorpus, FileCorpus, HubTokenizer, LocalTokenizer

_KNOWN_VOCABULARIES = {"EleutherAI/gpt-neox-20b": 50_304, "gpt2": 50_257}
EMBEDDED = Path(__file__).resolve().parents[1] / "data" / "english.jsonl.xz"


@dataclass(frozen=True)
class DataNodes:
    """The three nodes, where their sources lie, and how many rows a model's embedding has."""

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


def data_nodes(data: Data, folder: Path) -> DataNodes:
    """Resolve sources to digests; relative paths start at `folder`.

    Raises:
        CoolbitsError: if a file is missing.
    """
    locations: dict[str, list[str]] = {}
    source, label = _source(data, folder, locations)
    corpus_recipe = recipes.Corpus(source=source, validation_fraction=data.validation_fraction, salt=data.salt)
    corpus = make_node("corpus", label, corpus_recipe.identity(), {})
    tokenizer = _tokenizer(data, folder, corpus.ref, locations)
    shards = make_node(
        "shards",
        f"{label}-{tokenizer.name.rpartition('-')[0]}",
        recipes.Shards(shard_tokens=data.shard_tokens).identity(),
        {"corpus": corpus.ref, "tokenizer": tokenizer.ref},
    )
    return DataNodes((corpus, tokenizer, shards), locations, _vocabulary_size(data))


def _source(data: Data, folder: Path, locations: dict[str, list[str]]) -> tuple[recipes.Source, str]:
    choice = data.corpus
    if isinstance(choice, EmbeddedCorpus):
        return recipes.EmbeddedSource(sha256=file_digest(EMBEDDED)), "english"
    if isinstance(choice, FileCorpus):
        paths = [_existing(folder / path, "data.corpus.paths") for path in choice.paths]
        locations["files"] = [str(path) for path in paths]
        names, digests = tuple(path.name for path in paths), tuple(file_digest(path) for path in paths)
        return recipes.FileSource(names=names, sha256=digests, text_field=choice.text_field), _slug(paths[0].stem)
    source = recipes.HubSource(**choice.model_dump())
    return source, _slug("-".join(filter(None, (choice.id.rpartition("/")[2], choice.config))))


def _tokenizer(data: Data, folder: Path, corpus: Ref, locations: dict[str, list[str]]) -> Node:
    choice = data.tokenizer
    tokenizer: recipes.Tokenizer
    parents: dict[str, Ref] = {}
    if isinstance(choice, HubTokenizer):
        tokenizer, label = recipes.HubTokenizer(id=choice.id, revision=choice.revision), choice.id.rpartition("/")[2]
    elif isinstance(choice, LocalTokenizer):
        directory = folder / choice.path
        digest = file_digest(_existing(directory / "tokenizer.json", "data.tokenizer.path"))
        locations["tokenizer"] = [str(directory.resolve())]
        tokenizer, label = recipes.LocalTokenizer(sha256=digest), directory.name
    else:
        tokenizer = recipes.TrainedTokenizer(**choice.model_dump())
        label, parents = f"bpe{choice.vocabulary_size}", {"corpus": corpus}
    recipe = recipes.TokenizerRecipe(tokenizer=tokenizer).identity()
    return make_node("tokenizer", _slug(label), recipe, parents)


def _vocabulary_size(data: Data) -> int:
    """Return the rows of the embedding; public models round their tokenizer's size up, so it is not counted."""
    choice = data.tokenizer
    size = choice.vocabulary_size
    if size is None and isinstance(choice, HubTokenizer):
        size = _KNOWN_VOCABULARIES.get(choice.id)
    if size is None:
        raise CoolbitsError(
            "data.tokenizer.vocabulary_size: missing; it is known only for " + ", ".join(_KNOWN_VOCABULARIES)
        )
    return size


def _existing(path: Path, key: str) -> Path:
    if not path.is_file():
        raise CoolbitsError(f"{key}: {path} is no file")
    return path.resolve()


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")[:40] or "data"
