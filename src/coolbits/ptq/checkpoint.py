"""Quantize one checkpoint by several recipes, paying once for what they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.progress import Progress
from coolbits.models.activations import OutlierRounding, Rounding, TokenRounding
from coolbits.models.blocks import decoder_blocks, decoder_linears, longest_sequence
from coolbits.models.files import load_model, save_model
from coolbits.models.head import is_tied
from coolbits.models.quantized import apply_quantized, write_packed
from coolbits.models.tokenizer_files import copy_tokenizer
from coolbits.ptq.awq_pass import awq_pass
from coolbits.ptq.calibration import check_calibration
from coolbits.ptq.head import quantized_linears, with_head
from coolbits.ptq.ledger import Result, write_ledger
from coolbits.ptq.passes import Advance, Results, check_layers, check_reach, one_pass, plain_pass, sequential_pass
from coolbits.ptq.tokens import Tokens, read_tokens
from coolbits.ptq.tracing import trace_model
from coolbits.ptq.unfinished import Place
from coolbits.study.recipes.methods import AWQ, CALIBRATED, GPTQ, Int8
from coolbits.study.recipes.ptq import Activations, Quantized, Rotation

DEQUANTIZED = "model"
_PROBE_TOKENS = 32


@dataclass(frozen=True)
class Request:
    """A recipe to quantize by, and the calibration's directory, if the method calibrates.

    Then finished blocks are kept in `place`, if it is given, until whoever made the request has stored the result and
    clears it: a request that is made again goes on from them.
    """

    recipe: Quantized
    calibration: Path | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Quantization:
    """Layers and ledger lines by module name, and other parameters that changed by their names.

    `untied`: the head is among the layers and shared the embedding's weight, which stays as it is.
    """

    results: Results
    replaced: Mapping[str, torch.Tensor] = field(default_factory=dict)
    untied: bool = False


Finished = Callable[[int, Quantization], None]


def build_quantized(
    recipe: Quantized, model: Path, calibration: Path | None, out: Path, device: str = "cpu"
) -> dict[str, Any]:
    """Quantize the model in the directory `model`, shown the tokens of `calibration`, into `out`; return the summary.

    Raises:
        CoolbitsError: as `quantize_checkpoint`.
    """
    (made,) = quantize_checkpoint([Request(recipe, calibration)], model, device)
    return write_results(recipe, made, model, out)


def quantize_checkpoint(requests: Sequence[Request], model: Path, device: str = "cpu") -> list[Quantization]:
    """Quantize the model in the directory `model` as each request says: see `quantize_model`.

    It stays on the CPU in the dtype of its files.
    """
    loaded = load_model(model, dtype=None)
    return quantize_model(requests, loaded, str(model), torch.device(device))


def quantize_model(
    requests: Sequence[Request], model: PreTrainedModel, name: str = "the model", device: torch.device | None = None
) -> list[Quantization]:
    """Quantize the linear layers as each request says: see `quantize_in_turn`; all results wait for the last.

    Raises:
        CoolbitsError: as `quantize_in_turn`.
    """
    made: dict[int, Quantization] = {}
    quantize_in_turn(requests, model, made.__setitem__, name, device)
    return [made[index] for index in range(len(requests))]


def quantize_in_turn(
    requests: Sequence[Request],
    model: PreTrainedModel,
    finished: Finished,
    name: str = "the model",
    device: torch.device | None = None,
) -> None:
    """Quantize the linear layers as each request says; the model stays as it is. `name` is for messages.

    `finished(index, quantization)` is called as soon as the request of that index is done, in no set order: what it
    stores, nothing that comes later can lose. The model is whole then, and the result is its to keep or drop.

    Wherever the model is and whatever its dtype, `device` (None: where it is) computes in float32 and holds one block
    of it at a time. Finished layers wait packed, on the CPU.

    Requests that calibrate alike share the tokens and the trace of the model; those that are not sequential share one
    pass a rotation and a precision, with the head or without, and bit widths one sweep; these end together, as those of
    AWQ do. Layers are checked before any work.

    Raises:
        CoolbitsError: if decoder blocks hold weights that are in no linear layer, groups do not fit a layer, a weight
            is not finite, there is too little to calibrate on, or the head is to be quantized and is no linear layer.
    """
    check_reach(model, name)
    layers = [quantized_linears(model, request.recipe.head, name) for request in requests]
    for request, linears in zip(requests, layers, strict=True):
        check_layers(linears, request.recipe.method)
    calibrations = {directory: read_tokens(directory) for directory in _by_calibration(requests, name)}
    for calibration in calibrations.values():
        check_calibration(calibration, decoder_linears(model), model.config.vocab_size)

    def finish(index: int, made: Quantization) -> None:
        finished(index, replace(made, untied=requests[index].recipe.head and is_tied(model)))

    with Progress(f"quantize {Path(name).name}", sum(map(len, layers)), "layers") as progress:
        for index, request in enumerate(requests):
            method = request.recipe.method
            if not isinstance(method, GPTQ | AWQ):
                results = plain_pass(layers[index], method, progress.advance, request.recipe.rotation, device)
                finish(index, Quantization(results))
        for directory, alike in _by_calibration(requests, name).items():
            _calibrate(model, alike, calibrations[directory], finish, progress.advance, device)


def _by_calibration(requests: Sequence[Request], name: str) -> dict[Path, dict[int, Request]]:
    groups: dict[Path, dict[int, Request]] = {}
    for index, request in enumerate(requests):
        if isinstance(request.recipe.method, CALIBRATED):
            if request.calibration is None:
                raise CoolbitsError(f"{name}: {request.recipe.method.kind} needs a calibration, none is given")
            groups.setdefault(request.calibration, {})[index] = request
    return groups


def _calibrate(
    model: PreTrainedModel,
    requests: Mapping[int, Request],
    tokens: Tokens,
    finish: Finished,
    advance: Advance,
    device: torch.device | None,
) -> None:
    """Quantize by methods that calibrate on the same tokens."""
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, tokens, device)
    heads = {request.recipe.head for request in requests.values()}
    traces = {head: with_head(trace, model) if head else trace for head in heads}
    layers = {head: quantized_linears(model, head) for head in heads}
    together: dict[tuple[Rotation | None, bool, str], dict[int, GPTQ]] = {}
    scaled: dict[int, AWQ] = {}
    for index, request in requests.items():
        recipe = request.recipe
        own = traces[recipe.head], layers[recipe.head]
        match recipe.method:
            case GPTQ(sequential="none") as method:
                together.setdefault((recipe.rotation, recipe.head, method.precision), {})[index] = method
            case GPTQ() as method:
                finish(index, Quantization(sequential_pass(*own, method, advance, recipe.rotation, request.place)))
            case AWQ() as method:
                scaled[index] = method
    for (rotation, head, _), methods in together.items():
        places = [requests[index].place for index in methods]
        passed = one_pass(traces[head], layers[head], list(methods.values()), advance, rotation, places)
        for index, results in zip(methods, passed, strict=True):
            finish(index, Quantization(results))
    if scaled:
        places = [requests[index].place for index in scaled]
        both = awq_pass(model, trace, linears, tokens, list(scaled.values()), advance, places)
        for index, each in zip(scaled, both, strict=True):
            finish(index, Quantization(*each))


def write_results(recipe: Quantized, made: Quantization, model: Path, out: Path) -> dict[str, Any]:
    """Write codes, layout, ledger and, if the recipe asks for it, the dequantized model; return the summary.

    `bytes` is the size of packed codes, scales and zeros; `mean_bits` the same a weight; `untied` is there if true.
    """
    results: Mapping[str, Result] = made.results
    layers = {name: result.packing for name, result in results.items()}
    size = write_packed(layers, made.replaced, rounding_of(recipe), out)
    write_ledger(results, out)
    if recipe.save_model:
        _write_model(model, out)
    summary = {
        "modules": len(results),
        "fallbacks": sum(result.entry.fell_back for result in results.values()),
        "bytes": size,
        "mean_bits": 8 * size / sum(outputs * inputs for outputs, inputs in (layer.shape for layer in layers.values())),
    }
    return summary | ({"untied": True} if made.untied else {})


def rounding_of(recipe: Quantized) -> Rounding | None:
    """Return how the quantized layers' inputs are rounded while the model runs."""
    match recipe.method, recipe.activations:
        case Int8() as method, _:
            return OutlierRounding(method.threshold, method.precision)
        case _, Activations() as activations:
            return TokenRounding(activations.bits, activations.symmetric)
        case _:
            return None


def _write_model(model: Path, out: Path) -> None:
    """Write the dequantized model beside its codes in `out`, and see that it gives the same logits when reloaded."""
    quantized = load_model(model)
    apply_quantized(quantized, out)
    with TemporaryDirectory() as folder:
        copy_tokenizer(model, Path(folder))
        save_model(quantized, Path(folder), out / DEQUANTIZED)
    length = min(_PROBE_TOKENS, longest_sequence(quantized) or _PROBE_TOKENS)
    probe = torch.arange(length)[None] % quantized.config.vocab_size
    with torch.inference_mode():
        expected = quantized(input_ids=probe).logits
        del quantized
        found = load_model(out / DEQUANTIZED)(input_ids=probe).logits
    # Logits that are not a number are no reason to lose codes and ledger: reloaded, they are not a number again.
    if not torch.allclose(expected, found, rtol=1e-5, atol=1e-6, equal_nan=True):
        raise RuntimeError(f"{out / DEQUANTIZED}: reloaded, the model differs by {(expected - found).abs().max():.2e}")
