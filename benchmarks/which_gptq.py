"""One checkpoint under all that is called GPTQ, and under its neighbours: two Markdown tables.

    python benchmarks/which_gptq.py MODEL SHARDS [--bits 4 3] [--group-size 64] [--calibration FOLDER]

MODEL is a Hugging Face directory, SHARDS a folder of token shards, on whose validation split the loss is measured.
The first table has a line a preset, the second one a line a knob of `gptq` changed alone. All are shown the
same tokens: those of the artifact in FOLDER, or windows of the training split. Printed: the knobs; of how many layers
another method ran than the quantizer's (the ledger of `coolbits quantize` says which and why); the proxy loss over that
of rounding to nearest on the same grid under the same Hessians, the mean of all layers that have both; the relative
error of the held-out loss, CE(quantized) / CE - 1 in percent, with its 95% interval over documents.
"""

import argparse
import copy
import statistics
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from coolbits.data.shards import TokenStream, open_stream
from coolbits.evaluation.loss import document_losses
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, apply_model
from coolbits.ptq.calibration_set import draw_windows
from coolbits.ptq.checkpoint import Request, quantize_model, rounding_of
from coolbits.ptq.ledger import Result
from coolbits.ptq.presets import FAMILIES, quantizer_preset
from coolbits.ptq.tokens import write_tokens
from coolbits.resampling import percentiles, resampled_means
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.evaluation import Loss
from coolbits.study.recipes.methods import GPTQ, RTN, OnGrid, ScaleSearch
from coolbits.study.recipes.ptq import Quantized

PLAIN = ("rtn", "rotated-rtn", *FAMILIES, "rotated-gptq", "awq", "hqq")
FIXED = ("bnb-fp4", "bnb-nf4", "bnb-int8")
CHANGES: dict[str, dict[str, Any]] = {
    "gptq": {},
    "natural order": {"order": "natural"},
    "group-aware order": {"order": "group-aware"},
    "static groups": {"static_groups": True},
    "static groups, natural order": {"static_groups": True, "order": "natural"},
    "damping 0.001": {"damping": 0.001},
    "damping 0.05": {"damping": 0.05},
    "Hessians block by block": {"sequential": "block"},
    "Hessians of the unquantized model": {"sequential": "none"},
    "asymmetric grid": {"grid": {"symmetric": False}},
    "searched grid": {"grid": {"search": ScaleSearch()}},
    "float32": {"precision": "float32"},
    "one scale a row": {"grid": {"group_size": None}},
}
HEADINGS = (
    *("quantizer", "bits", "group", "order", "groups", "damping", "Hessians"),
    *("fell back", "proxy / RTN", "error of loss, %"),
)
SEQUENTIAL = {"layer": "layer by layer", "block": "block by block", "none": "unquantized model"}


def knobs(recipe: Quantized) -> tuple[str, ...]:
    """Return the cells from `bits` to `Hessians`."""
    method = recipe.method
    grid = str(method.group_size or "row")
    if isinstance(method, OnGrid) and not method.grid.symmetric:
        grid += ", asym"
    if not isinstance(method, GPTQ):
        return str(method.bits), grid, "", "", "", ""
    groups = "static" if method.static_groups else "dynamic"
    return str(method.bits), grid, method.order, groups, str(method.damping), SEQUENTIAL[method.sequential]


def changed(bits: int, group_size: int) -> dict[str, Quantized]:
    """Return `gptq` on this grid and with one knob changed at a time, and `rtn` on other grids."""
    base = quantizer_preset(f"gptq-w{bits}-g{group_size}").method
    assert isinstance(base, GPTQ)
    recipes = {}
    for name, change in CHANGES.items():
        grid = base.grid.model_copy(update=change.get("grid", {}))
        recipes[f"{name}, {bits} bits"] = Quantized(method=base.model_copy(update=change | {"grid": grid}))
    for name in ("asymmetric grid", "searched grid"):
        grid = base.grid.model_copy(update=CHANGES[name]["grid"])
        recipes[f"rtn, {name}, {bits} bits"] = Quantized(method=RTN(grid=grid))
    return recipes


def fell_back(results: list[Result]) -> str:
    """Return of how many layers another method ran than asked for: `4 of 16`."""
    return f"{sum(result.entry.fell_back for result in results)} of {len(results)}"


def proxy_ratio(results: list[Result]) -> str:
    entries = [result.entry for result in results]
    ratios = [entry.proxy_loss / entry.rtn_proxy_loss for entry in entries if entry.proxy_loss and entry.rtn_proxy_loss]
    return f"{statistics.mean(ratios):.3f}" if ratios else ""


def lines(
    model: PreTrainedModel, recipes: dict[str, Quantized], calibration: Path, validation: TokenStream, measure: Loss
) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each quantizer's line."""
    base = document_losses(model, validation, measure)
    for name, recipe in recipes.items():
        (made,) = quantize_model([Request(recipe, calibration)], model)
        quantized = copy.deepcopy(model)
        layers = {module: result.layer for module, result in made.results.items()}
        apply_model(quantized, QuantizedModel(layers, made.replaced, rounding_of(recipe)))
        error, low, high = relative_error(base, document_losses(quantized, validation, measure))
        shown = f"{100 * error:.2f} ({100 * low:.2f} to {100 * high:.2f})"
        results = list(made.results.values())
        yield (name, *knobs(recipe), fell_back(results), proxy_ratio(results), shown)


def relative_error(base: pd.DataFrame, quantized: pd.DataFrame) -> tuple[float, float, float]:
    """Return the relative error of the loss and the ends of its 95 % interval over documents."""
    nats = np.stack([base["nats"], quantized["nats"]])
    full, rounded = resampled_means(nats, samples=1000, seed=0)
    low, high = percentiles(rounded / full - 1, 0.95)
    return nats[1].sum() / nats[0].sum() - 1, float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a Hugging Face directory")
    parser.add_argument("shards", type=Path, help="token shards of the model's tokenizer")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3], help="default: 4 3")
    parser.add_argument("--group-size", type=int, default=64, help="default: 64")
    parser.add_argument("--calibration", type=Path, help="an artifact; default: windows of the training split")
    parser.add_argument("--sequences", type=int, default=128, help="windows of the training split (default: 128)")
    parser.add_argument("--sequence-length", type=int, default=64, help="tokens of a window, everywhere (default: 64)")
    parser.add_argument("--windows", type=int, default=512, help="windows of the validation split (default: 512)")
    options = parser.parse_args()
    names = [f"{name}-w{bits}-g{options.group_size}" for bits in options.bits for name in PLAIN]
    tables = [
        {f"`{name}`": quantizer_preset(name) for name in (*names, *FIXED)},
        {name: recipe for bits in options.bits for name, recipe in changed(bits, options.group_size).items()},
    ]
    measure = Loss(windows=options.windows, sequence_length=options.sequence_length)
    with TemporaryDirectory() as folder:
        calibration = options.calibration or Path(folder)
        if options.calibration is None:
            windows = Windows(sequences=options.sequences, sequence_length=options.sequence_length)
            write_tokens(draw_windows(open_stream(options.shards, "train"), windows), calibration)
        model, validation = load_model(options.model, "cpu", torch.float32), open_stream(options.shards, "validation")
        for recipes in tables:
            print("| " + " | ".join(HEADINGS) + " |")
            print("|---" * len(HEADINGS) + "|")
            for cells in lines(model, recipes, calibration, validation, measure):
                print("| " + " | ".join(cells) + " |", flush=True)
            print()


if __name__ == "__main__":
    main()
