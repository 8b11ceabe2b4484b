"""Tokenizers: byte-level BPE trained on the corpus, from the hub, local, or a model's own; all saved the same way."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.data.documents import read_rows, read_sizes
from coolbits.data.draws import first_filling
from coolbits.data.hub import download_tokenizer
from coolbits.data.local_tokenizer import local_files
from coolbits.data.sources import check_digest
from coolbits.models.hub import commit_of
from coolbits.study.execution import Execution
from coolbits.study.recipes.data import (
    HubTokenizer,
    LocalTokenizer,
    PretrainedTokenizer,
    Tokenizer,
    TokenizerRecipe,
    TrainedTokenizer,
)

END_OF_TEXT = "<|endoftext|>"


def run(job: Job, store: Store) -> int:
    """Make the tokenizers of a job; return how many were not there yet."""
    use_threads(Execution.read(job.execution).tokenizer_workers)
    local = next((Path(path) for path in job.locations.get("tokenizer", [])), None)

    def make(node: Node) -> Callable[[Path], dict[str, Any]]:
        recipe = TokenizerRecipe.read(node.recipe).tokenizer
        parents = {role: ref.directory(store.root) for role, ref in node.parents.items()}
        return lambda out: build_tokenizer(recipe, parents.get("corpus"), parents.get("model", local), out)

    return sum(store.ensure(node, make(node)) for node in job.nodes)


def use_threads(count: int) -> None:
    """Let the tokenizers library use `count` threads; heeded until its first parallel work in this process."""
    os.environ["RAYON_NUM_THREADS"] = str(count)
    # Unset, the library turns parallel work off, with a warning, in a process that has ever forked.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def build_tokenizer(recipe: Tokenizer, corpus: Path | None, location: Path | None, out: Path) -> dict[str, Any]:
    """Make a tokenizer and save it to `out` as a Hugging Face directory; return the summary.

    `corpus` is the corpus directory for one trained here; `location` the directory of a local one, or of the pretrained
    model whose tokenizer it is.

    Raises:
        CoolbitsError: if the hub refuses, the files of a local one are not those named by digest, the training text is
            too short for the vocabulary, or the tokenizer has no end-of-text token, or not the one asked for.
    """
    origin = {}
    if isinstance(recipe, HubTokenizer):
        snapshot = download_tokenizer(recipe)
        origin = {"commit": commit_of(snapshot)}
        tokenizer = load_tokenizer(snapshot)
    else:
        tokenizer = _tokenizer(recipe, corpus, location)
    if tokenizer.eos_token_id is None:
        if isinstance(recipe, PretrainedTokenizer):
            raise CoolbitsError("pretrained: the model's tokenizer names no end-of-text token; give `end_of_text`")
        remedy = "give `eos_token` in its tokenizer_config.json"
        raise CoolbitsError(f"data.tokenizer: the {recipe.kind} tokenizer names no end-of-text token; {remedy}")
    tokenizer.save_pretrained(out)
    return {"vocabulary_size": vocabulary_size(tokenizer), "end_of_text_id": tokenizer.eos_token_id} | origin


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Open a tokenizer directory, without the network; code that it may hold is never run.

    Raises:
        CoolbitsError: if it holds no fast tokenizer that can be opened.
    """
    if not (directory / "tokenizer_config.json").is_file() and not (directory / "tokenizer.json").is_file():
        raise CoolbitsError(f"{directory}: there is no tokenizer.json or tokenizer_config.json")
    try:
        # Unless it is told not to, the library asks whoever sits at the terminal whether it may run code.
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    # The library raises bare `Exception` for a malformed tokenizer.json.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CoolbitsError(f"{directory}: the tokenizer cannot be opened ({reason})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CoolbitsError(f"{directory}: {type(tokenizer).__name__} has no fast form, which tokenizing needs")
    return tokenizer


def vocabulary_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return one more than the largest id, which is more than the entries where ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def _tokenizer(
    recipe: TrainedTokenizer | LocalTokenizer | PretrainedTokenizer, corpus: Path | None, location: Path | None
) -> PreTrainedTokenizerFast:
    if isinstance(recipe, LocalTokenizer):
        return load_tokenizer(_checked(location, recipe))
    if isinstance(recipe, PretrainedTokenizer):
        return _ending(location, recipe)
    if corpus is None:
        raise CoolbitsError("tokenizer: one of kind `bpe` is trained on a corpus, and none was given")
    return _train(recipe, corpus)


def _ending(location: Path | None, recipe: PretrainedTokenizer) -> PreTrainedTokenizerFast:
    """Return a model's own tokenizer, with the end-of-text token that the recipe asks for."""
    if location is None:
        raise CoolbitsError("tokenizer: one of kind `pretrained` is a model's, and none was given")
    tokenizer = load_tokenizer(location)
    if recipe.end_of_text is not None:
        if recipe.end_of_text not in tokenizer.get_vocab():
            raise CoolbitsError(f"tokenizer.end_of_text: {recipe.end_of_text!r} is no token of {location}")
        tokenizer.eos_token = recipe.end_of_text
    return tokenizer


def _checked(location: Path | None, recipe: LocalTokenizer) -> Path:
    if location is None:
        raise CoolbitsError("locations.tokenizer: missing, but the recipe asks for a local tokenizer")
    for name, digest in zip(recipe.names, recipe.sha256, strict=True):
        check_digest(location / name, digest)
    for name in local_files(location):
        if name not in recipe.names:
            said = "not among the recipe's `names`, but the tokenizer would be read from it, too"
            raise CoolbitsError(f"{location / name}: {said}")
    return location


def _train(recipe: TrainedTokenizer, corpus: Path) -> PreTrainedTokenizerFast:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(training_texts(corpus, recipe.training_bytes), trainer)
    if backend.get_vocab_size() < recipe.vocabulary_size:
        raise CoolbitsError(
            f"data.tokenizer.vocabulary_size: the training text gives {backend.get_vocab_size()} entries of "
            f"{recipe.vocabulary_size}; lower it, raise `training_bytes` or take a larger corpus"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def training_texts(corpus: Path, limit: int) -> Iterator[str]:
    """Yield training documents of `limit` UTF-8 bytes in all, or all there are, in the order of the corpus.

    A corpus is often sorted by source, so its beginning would be a poor sample: documents are drawn by their ids, which
    are hashes, the smallest first. The last one drawn is cut, between characters, to the bytes that are left. Memory
    grows with the documents drawn.
    """
    sizes = ((int(identity, 16), size, identity) for identity, size in read_sizes(corpus, "train"))
    drawn = first_filling(sizes, limit)
    size, last = drawn[-1]
    left = size - max(0, sum(own for own, _ in drawn) - limit)
    for row in read_rows(corpus, "train", ["id", "text"]):
        if row["id"] < last:
            yield row["text"]
        elif row["id"] == last:
            yield row["text"].encode()[:left].decode(errors="ignore")
