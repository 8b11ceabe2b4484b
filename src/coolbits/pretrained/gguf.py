"""GGUF files: weights, config and tokenizer in one, read by transformers and the package gguf."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import ATTENTION
from coolbits.models.files import quiet_library


def read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the model of a GGUF file with weights of `dtype`, blocks dequantized, and its tokenizer.

    Raises:
        CoolbitsError: if the package gguf is missing, or the file cannot be read as a model.
    """
    file = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    with _reading(path), quiet_library(), redirect_stderr(StringIO()):  # one of its bars heeds no setting
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, **file)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            dtype=dtype,
            attn_implementation=ATTENTION,
            # Else the library keeps blocks where it finds a kernel for them, and such a model is not saved.
            quantization_config=GgufConfig(dequantize=True),
            **file,
        )
    return model, tokenizer


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise CoolbitsError(f"{path}: GGUF files take the package gguf: `pip install coolbits[gguf]`") from error
    # The libraries raise whatever their parsers meet in a damaged file: struct.error, KeyError, IndexError ...
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CoolbitsError(f"{path}: cannot be read as a model in GGUF ({reason})") from error
