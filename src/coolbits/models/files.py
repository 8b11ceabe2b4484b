"""Models as Hugging Face directories: `config.json`, `model.safetensors` and the tokenizer's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import ATTENTION
from coolbits.models.tokenizer_files import copy_tokenizer

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def save_model(model: PreTrainedModel, tokenizer: Path, out: Path) -> None:
    """Write `model` and a copy of the tokenizer in the directory `tokenizer` to `out`, a Hugging Face directory.

    Weights are written in their dtype, tied ones once. Equal weights give equal bytes: no paths, no times.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _no_progress_bars():
        model.save_pretrained(out)
    copy_tokenizer(tokenizer, out)


def load_model(
    directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a Hugging Face directory in evaluation mode, from safetensors alone and without running code it may hold.

    Raises:
        CoolbitsError: if a file is missing or unreadable, or if weights and config do not fit each other.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file() and not (directory / f"{name}.index.json").is_file():
            raise CoolbitsError(f"{directory / name}: no such file; a model is saved as {_CONFIG} and {_WEIGHTS}")
    with _reading(directory / _CONFIG):
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    with _reading(directory / _WEIGHTS), _no_progress_bars():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, with their names
            output_loading_info=True,
        )
    model, report = loaded
    misfits = {key: sorted(map(str, found)) for key, found in report.items() if found}
    if misfits:
        raise CoolbitsError(f"{directory / _WEIGHTS}: does not fit {_CONFIG} beside it: {misfits}")
    return model.to(device).eval()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the libraries raise for an unreadable file into one sentence that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise CoolbitsError(f"{path}: cannot be read as part of a model ({reason})") from None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the library's bars out of a block; a stage reports its own progress."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
