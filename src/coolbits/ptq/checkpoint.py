"""Quantize one checkpoint by several recipes, paying once for what they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.progress import Progress
from coolbits.data.shards import open_stream
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.files import load_model, save_model
from coolbits.models.quantized import apply_quantized, write_quantized
from coolbits.models.tokenizer_files import copy_tokenizer
from coolbits.ptq.calibration import calibration_tokens, check_calibration
from coolbits.ptq.ledger import Result, write_ledger
from coolbits.ptq.passes import Advance, Results, check_layers, one_pass, rtn_pass, sequential_pass
from coolbits.ptq.tracing import trace_model
from coolbits.study.recipes.ptq import GPTQ, RTN, Calibration, Method, Quantized

DEQUANTIZED = "model"
_PROBE_TOKENS = 32


@dataclass(frozen=True)
class Request:
    """A method to quantize by, and the directory of token shards to calibrate it on, if it calibrates."""

    method: Method
    shards: Path | None = None


def build_quantized(
    recipe: Quantized, model: Path, shards: Path | None, out: Path, device: str = "cpu"
) -> dict[str, Any]:
    """Quantize the model in the directory `model`, calibrated on `shards`, into `out`; return the summary.

    Raises:
        CoolbitsError: as `quantize_checkpoint`.
    """
    (results,) = quantize_checkpoint([Request(recipe.method, shards)], model, device)
    return write_results(recipe, results, model, out)


def quantize_checkpoint(requests: Sequence[Request], model: Path, device: str = "cpu") -> list[Results]:
    """Quantize the decoder's linear layers as each request says; return layers and ledger lines by module name.

    The model is loaded once. Requests that calibrate alike share the tokens and the trace of the model; those that
    are not sequential share one pass, and bit widths one sweep. Layers are checked before any work.

    Raises:
        CoolbitsError: if groups do not fit a layer, a weight is not finite, or there is too little to calibrate on.
    """
    loaded = load_model(model, device, torch.float32)
    linears = decoder_linears(loaded)
    for request in requests:
        check_layers(linears, request.method)
        if isinstance(request.method, GPTQ):
            check_calibration(request.method.calibration, linears)
    made: dict[int, Results] = {}
    with Progress(f"quantize {model.name}", len(requests) * len(linears), "layers") as progress:
        for index, request in enumerate(requests):
            if isinstance(request.method, RTN):
                made[index] = rtn_pass(linears, request.method, progress.advance)
        for (shards, calibration), methods in _by_calibration(requests).items():
            if shards is None:
                raise CoolbitsError(f"{model}: gptq needs a directory of token shards to calibrate on, none is given")
            tokens = calibration_tokens(open_stream(shards, "train"), calibration)
            made |= _calibrated(loaded, methods, tokens, progress.advance)
    return [made[index] for index in range(len(requests))]


def _by_calibration(requests: Sequence[Request]) -> dict[tuple[Path | None, Calibration], dict[int, GPTQ]]:
    groups: dict[tuple[Path | None, Calibration], dict[int, GPTQ]] = {}
    for index, request in enumerate(requests):
        if isinstance(request.method, GPTQ):
            groups.setdefault((request.shards, request.method.calibration), {})[index] = request.method
    return groups


def _calibrated(
    model: PreTrainedModel, methods: Mapping[int, GPTQ], tokens: torch.Tensor, advance: Advance
) -> dict[int, Results]:
    """Quantize by methods that calibrate on the same tokens."""
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, tokens)
    made = {
        index: sequential_pass(trace, linears, method, advance)
        for index, method in methods.items()
        if method.true_sequential
    }
    together = {index: method for index, method in methods.items() if not method.true_sequential}
    if together:
        made |= zip(together, one_pass(trace, linears, list(together.values()), advance), strict=True)
    return made


def write_results(recipe: Quantized, results: Mapping[str, Result], model: Path, out: Path) -> dict[str, Any]:
    """Write codes, layout, ledger and, if the recipe asks for it, the dequantized model; return the summary.

    `bytes` is the size of packed codes, scales and zeros; `mean_bits` the same a weight.
    """
    layers = {name: result.layer for name, result in results.items()}
    size = write_quantized(layers, out)
    write_ledger(results, out)
    if recipe.save_model:
        _write_model(model, out)
    return {
        "modules": len(results),
        "fallbacks": sum(result.entry.fell_back for result in results.values()),
        "bytes": size,
        "mean_bits": 8 * size / sum(layer.codes.numel() for layer in layers.values()),
    }


def _write_model(model: Path, out: Path) -> None:
    """Write the dequantized model beside its codes in `out`, and see that it gives the same logits when reloaded."""
    quantized = load_model(model)
    apply_quantized(quantized, out)
    with TemporaryDirectory() as folder:
        copy_tokenizer(model, Path(folder))
        save_model(quantized, Path(folder), out / DEQUANTIZED)
    probe = torch.arange(_PROBE_TOKENS)[None] % quantized.config.vocab_size
    with torch.inference_mode():
        expected, found = (each(input_ids=probe).logits for each in (quantized, load_model(out / DEQUANTIZED)))
    if not torch.allclose(expected, found, rtol=1e-5, atol=1e-6):
        raise RuntimeError(f"{out / DEQUANTIZED}: reloaded, the model differs by {(expected - found).abs().max():.2e}")
