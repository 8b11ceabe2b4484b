"""Models as Hugging Face directories: `config.json`, `model.safetensors` and the tokenizer's files."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import MANIFEST, RECORD
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.build import ATTENTION

__all__ = ["decoder_blocks", "decoder_linears", "load_model", "save_model"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def save_model(model: PreTrainedModel, tokenizer: Path, out: Path) -> None:
    """Write `model` and a copy of the files of the directory `tokenizer` to `out`, a Hugging Face directory.

    Weights are written in their dtype, tied ones once. Equal weights give equal bytes: no paths, no times.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    for path in sorted(tokenizer.iterdir()):
        if path.is_file() and path.name not in (MANIFEST, RECORD):
            shutil.copyfile(path, out / path.name)


def load_model(
    directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a Hugging Face directory in evaluation mode, from safetensors alone and without running code it may hold.

    Raises:
        CoolbitsError: if a file is missing or unreadable, or if weights and config do not fit each other.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file() and not (directory / f"{name}.index.json").is_file():
            raise CoolbitsError(
                f"{directory / name}: no such file; a model directory holds config.json and safetensors"
            )
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CoolbitsError(f"{directory}: not a readable model ({' '.join(str(error).split())})") from None
    misfits = {key: sorted(map(str, found)) for key, found in report.items() if found}
    if misfits:
        raise CoolbitsError(f"{directory / _WEIGHTS}: does not fit {_CONFIG} beside it: {misfits}")
    return model.to(device).eval()
