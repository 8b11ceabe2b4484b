"""The stage of pretrained models: whatever form they come in, they leave as a plain Hugging Face directory."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.data.tokenizers import load_tokenizer
from coolbits.models.files import load_model, save_model
from coolbits.models.hub import commit_of, download_model
from coolbits.models.own_code import forget_own_code
from coolbits.pretrained.gguf import read_gguf
from coolbits.study.recipes.pretrained import DirectoryWeights, GGUFWeights, HubWeights, Pretrained


def run(job: Job, store: Store) -> int:
    """Make the pretrained models of a job; return how many were made."""
    made = 0
    with Progress(job.name, len(job.nodes), "models") as progress:
        for node in job.nodes:
            made += store.ensure(node, partial(_build, node, job.locations))
            progress.advance(note=node.name)
    return made


def _build(node: Node, locations: dict[str, list[str]], out: Path) -> dict[str, Any]:
    place = next(map(Path, locations.get(f"{node.kind}/{node.name}", [])), None)
    return build_pretrained(Pretrained.read(node.recipe), place, out)


def build_pretrained(recipe: Pretrained, place: Path | None, out: Path) -> dict[str, Any]:
    """Write a pretrained model and its tokenizer to `out` as a Hugging Face directory; return the summary.

    `place` is where the directory or the GGUF file lies. Code that a model may bring is never run.

    Raises:
        CoolbitsError: if a file is missing, unreadable or not the one that the recipe names, the hub refuses, or the
            model has not as many parameters as the recipe says, or fewer embeddings than its tokenizer has tokens.
    """
    dtype = getattr(torch, recipe.dtype)
    origin: dict[str, str | None] = {}
    with TemporaryDirectory() as folder:
        match recipe.source:
            case GGUFWeights(sha256=digest):
                file = _located(place)
                _check_digest(file, digest)
                model, own = read_gguf(file, dtype)
                tokenizer = Path(folder)
                own.save_pretrained(tokenizer)
            case DirectoryWeights() as source:
                tokenizer = _located(place)
                for name, digest in zip(source.names, source.sha256, strict=True):
                    _check_digest(tokenizer / name, digest)
                model = load_model(tokenizer, dtype=dtype)
            case HubWeights(id=name, revision=revision):
                tokenizer = download_model(name, revision, tokenizer=True)
                origin = {"commit": commit_of(tokenizer)}
                model = load_model(tokenizer, dtype=dtype)
        parameters = _check(recipe, model, tokenizer)
        save_model(model, tokenizer, out)
        forget_own_code(out)
    return {
        "parameters": parameters,
        "vocabulary_size": model.config.vocab_size,
        "architecture": model.config.model_type,
        **origin,
    }


def _located(place: Path | None) -> Path:
    if place is None:
        raise CoolbitsError("locations: missing, but the recipe asks for a pretrained model on this machine")
    return place


def _check_digest(path: Path, expected: str) -> None:
    if not path.is_file():
        raise CoolbitsError(f"{path}: no such file")
    found = file_digest(path)
    if found != expected:
        raise CoolbitsError(f"{path}: its SHA-256 is {found}, but the recipe's `sha256` is {expected}")


def _check(recipe: Pretrained, model: PreTrainedModel, tokenizer: Path) -> int:
    """Return the number of the model's parameters, after it was found to fit the recipe and its tokenizer."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters != recipe.parameters:
        raise CoolbitsError(f"pretrained.parameters: the model has {parameters}, the study says {recipe.parameters}")
    tokens, rows = _written_vocabulary(load_tokenizer(tokenizer)), model.config.vocab_size
    # A GGUF file has a row for each of its tokens; the library adds special tokens that it has not, and no text gives.
    if tokens > rows and not isinstance(recipe.source, GGUFWeights):
        raise CoolbitsError(f"pretrained: the tokenizer has {tokens} tokens, but the model embeds {rows}")
    return parameters


def _written_vocabulary(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return one more than the largest id that a text gives.

    Of special tokens those do that begin and end one and stand for the unknown, and no others: Gemma 3's marker of
    images lies behind the last row of the models that see none.
    """
    given = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return max(set(tokenizer.get_vocab().values()) - (special - given)) + 1
