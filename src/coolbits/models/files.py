"""Models as Hugging Face directories: `config.json`, `model.safetensors` and the tokenizer's files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import json_kind
from coolbits.models.tokenizer_files import copy_tokenizer

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_ADAPTER = "adapter_config.json"
_SAFETENSORS = ".safetensors"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_OF_LIBRARIES = (SafetensorError, StrictDataclassError)
_SAID = 200


def save_model(
    model: PreTrainedModel, tokenizer: Path, out: Path, tensors: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write `model` and a copy of the tokenizer in the directory `tokenizer` to `out`, a Hugging Face directory.

    Weights are written in their dtype, tied ones once. Equal weights give equal bytes: no paths, no times. `tensors`
    are written in place of the model's own, by name.
    """
    out.mkdir(parents=True, exist_ok=True)
    with quiet_library():
        model.save_pretrained(out, state_dict=None if tensors is None else dict(tensors))
    copy_tokenizer(tokenizer, out)


def load_model(
    directory: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a Hugging Face directory in evaluation mode, from safetensors alone.

    With `dtype` None weights stay as they are: in the dtype of the files, or in float32 if those hold several.
    Code that it may hold runs only with `trust_remote_code`. Attention is PyTorch's `scaled_dot_product_attention`, or
    the library's `eager` one for architectures that have no other, such as Gemma 2 and BLOOM.

    Raises:
        CoolbitsError: if a file is missing or unreadable, if weights and config do not fit each other, if a weight is
            not finite, if only code of the model's own could open it and is not trusted, or if an adapter lies beside.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file() and not (directory / f"{name}.index.json").is_file():
            raise CoolbitsError(f"{directory / name}: no such file; a model is saved as {_CONFIG} and {_WEIGHTS}")
    if (directory / _ADAPTER).is_file():  # the library puts it into the model, or passes over it, if there is no `peft`
        raise CoolbitsError(
            f"{directory / _ADAPTER}: an adapter, which would be no part of the weights beside it; merge it into them, "
            "or move its files to another folder"
        )
    config, weights = load_config(directory, trust_remote_code), _weights(directory)
    if not trust_remote_code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CoolbitsError(
            f"{directory / _CONFIG}: model_type: {config.model_type} is none of the library's causal language models"
        )
    stored = stored_dtypes(directory)
    halves = [each for each in stored if each.itemsize == 2]
    with reading(weights), quiet_library():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype or (halves[0] if len(stored) == len(halves) == 1 else torch.float32),
            attn_implementation=None,  # the library's choice: PyTorch's own, or `eager` where it supports no other
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # refused below, with their names
            output_loading_info=True,
        )
    model, report = loaded
    misfits = [_misfit(kind, sorted(map(str, found))) for kind, found in report.items() if found]
    if misfits:
        raise CoolbitsError(f"{weights}: does not fit {_CONFIG} beside it: {'; '.join(misfits)}")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            cast = "" if weight.dtype in stored else f" in {str(weight.dtype).removeprefix('torch.')}"
            raise CoolbitsError(f"{weights}: {name} holds values that are not finite{cast}")
    return model.to(device).eval()


def weight_files(directory: Path) -> list[Path]:
    """Return the files that a model is read from: one, or those that an index names.

    Raises:
        CoolbitsError: if the index cannot be read.
    """
    if (weights := _weights(directory)).suffix == _SAFETENSORS:
        return [weights]
    with reading(weights, "an index of weights"):
        return [directory / name for name in sorted(set(json.loads(weights.read_bytes())["weight_map"].values()))]


def _weights(directory: Path) -> Path:
    """Return the file of weights or, only if that is not there, the index of several: as the library chooses."""
    alone, index = directory / _WEIGHTS, directory / _INDEX
    return index if index.is_file() and not alone.is_file() else alone


def stored_dtypes(directory: Path) -> Counter[torch.dtype]:
    """Return how many numbers a model's files hold of each floating dtype; masks, which older ones hold, are none.

    Raises:
        CoolbitsError: if a file is missing or unreadable.
    """
    found: Counter[torch.dtype] = Counter()
    for path in weight_files(directory):
        with reading(path), safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - the file is no mapping
                part = stored.get_slice(key)
                if (dtype := _FLOATS.get(part.get_dtype())) is not None:
                    found[dtype] += prod(part.get_shape())
    return found


def load_config(directory: Path, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Load the config of a Hugging Face directory.

    Raises:
        CoolbitsError: if it is missing or unreadable, or only code of the model's own could open it and is not trusted.
    """
    with reading(directory / _CONFIG):
        if not trust_remote_code:
            _refuse_own_code(directory / _CONFIG)
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return config


def _refuse_own_code(config: Path) -> None:
    """Refuse a model that only Python code of its own can open."""
    described = json.loads(config.read_bytes())
    if not isinstance(described, dict):
        raise CoolbitsError(f"{config}: holds {json_kind(described)}; keys and values are expected")
    if described.get("auto_map") and described.get("model_type") not in CONFIG_MAPPING:
        raise CoolbitsError(
            f"{config}: auto_map: the model brings Python code of its own, which a study never runs, and "
            "`coolbits quantize` only with --trust-remote-code"
        )


def _misfit(kind: str, found: list[str]) -> str:
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{kind.replace('_', ' ')} {found[0]}{more}"


@contextmanager
def reading(path: Path, what: str = "part of a model") -> Iterator[None]:
    """Turn what the libraries raise for an unreadable file into one sentence that names it, and what it should be."""
    try:
        yield
    except ImportError as error:
        raise CoolbitsError(
            f"{path}: what opens it is not installed ({_in_one_line(error.__cause__ or error)})"
        ) from None
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, *_OF_LIBRARIES) as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            raise CoolbitsError(f"{path}: no such file") from None
        # A library refuses a model with a ValueError, too; that says nothing against the file of weights.
        unfit = path.suffix == _SAFETENSORS and not isinstance(error, ValueError)
        expected = "; safetensors are expected" if unfit else ""
        raise CoolbitsError(f"{path}: cannot be read as {what} ({_in_one_line(error)}){expected}") from None


def _in_one_line(error: BaseException) -> str:
    """Say what a library says of an error, however long and in however many lines, in the first words of it."""
    said = " ".join(str(error).split())
    return said if len(said) <= _SAID else f"{said[:_SAID]}..."


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep the library's bars and reports out of a block: a stage tells its own progress, and its own mistakes."""
    enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            logging.enable_progress_bar()
