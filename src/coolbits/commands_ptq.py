"""The commands for people who only want a model quantized: quantize, export."""

import argparse
import logging
import os
import re
from collections.abc import Iterable
from math import exp, fsum, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coolbits.arguments import add_verb, at_least

if TYPE_CHECKING:
    from coolbits.ptq.export.model import Exported
    from coolbits.ptq.ledger import Result
    from coolbits.ptq.standalone import Outcome

_FORMATS = ("compressed-tensors", "gptq")
_DTYPES = ("float32", "bfloat16", "float16")
_NUMBER = re.compile(r"\.\d+(?=\.)")


def add_ptq_commands(verbs: Any) -> None:
    """Add the parsers of these commands to the subparsers `verbs`; each has its function as `command`."""
    quantize = add_verb(verbs, "quantize", "quantize one model, without a study")
    quantize.add_argument("--model", required=True, metavar="MODEL", help="a Hugging Face folder, or an id of the hub")
    quantize.add_argument(
        "--recipe", required=True, help="a preset such as gptq-w4-g128, or a YAML or JSON file with a quantizer"
    )
    quantize.add_argument("--out", type=Path, required=True, help="the folder to write, which must not exist")
    quantize.add_argument(
        "--calibration",
        metavar="SOURCE",
        help="what to calibrate on: embedded (packaged English), random, a .txt, .jsonl or .parquet file, a folder "
        "with tokens drawn before, or a dataset of the hub (default: the recipe's documents, or embedded)",
    )
    quantize.add_argument("--sequences", type=at_least(1), help="calibration sequences (default: the recipe's)")
    quantize.add_argument("--sequence-length", type=at_least(2), help="tokens of each (default: the recipe's)")
    quantize.add_argument("--seed", type=at_least(0), help="decides which sequences (default: the recipe's)")
    quantize.add_argument(
        "--revision", default="main", help="branch, tag or commit of a model of the hub (default: main)"
    )
    quantize.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if there is one"
    )
    _add_threads(quantize)
    quantize.add_argument("--head", action="store_true", help="also quantize the output head")
    quantize.add_argument("--save-model", action="store_true", help="also write the dequantized model, to OUT/model")
    quantize.add_argument("--export", choices=_FORMATS, help="also write this format, to OUT/FORMAT")
    quantize.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code that comes with the model"
    )
    quantize.set_defaults(command=_quantize)
    export = add_verb(verbs, "export", "write a quantized model in a format that other software opens")
    export.add_argument(
        "artifact", type=Path, metavar="ARTIFACT", help="a quantized artifact, or what `coolbits quantize` wrote"
    )
    export.add_argument("--format", choices=_FORMATS, required=True, help="docs/quantize.md says what each can hold")
    export.add_argument("--out", type=Path, required=True, help="the folder to write, which must not exist")
    export.add_argument("--model", type=Path, help="the model before quantization, if it is not where it was")
    export.add_argument(
        "--dtype",
        choices=_DTYPES,
        default="float32",
        help="of scales and unquantized weights (default: float32, which is exact)",
    )
    _add_threads(export)
    export.set_defaults(command=_export)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=at_least(1), help="CPU threads (default: one a core)")


def _use_threads(count: int | None) -> None:
    # OpenMP reads this once, when torch is first imported.
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)


def _quantize(options: argparse.Namespace) -> None:
    _use_threads(options.threads)
    from coolbits.ptq.standalone import quantize_standalone
    from coolbits.ptq.standalone_calibration import Wish
    from coolbits.ptq.standalone_order import Order

    logging.basicConfig(format="%(message)s")
    logging.getLogger("coolbits").setLevel(logging.INFO)
    wish = Wish(options.calibration, options.sequences, options.sequence_length, options.seed)
    outcome = quantize_standalone(
        Order(
            model=options.model,
            recipe=options.recipe,
            out=options.out,
            calibration=wish,
            revision=options.revision,
            device=options.device,
            head=options.head,
            save_model=options.save_model,
            export=options.export,
            trust_remote_code=options.trust_remote_code,
        )
    )
    _print_outcome(outcome, options.out)
    if outcome.exported is not None:
        print(f"{options.out / options.export}: {_exported(options.export, outcome.exported)}")


def _export(options: argparse.Namespace) -> None:
    _use_threads(options.threads)
    from coolbits.ptq.export.model import export_model

    made = export_model(options.artifact, options.format, options.out, options.model, options.dtype)
    print(f"{options.out}: {_exported(options.format, made)}")
    if options.dtype != "float32":
        print(f"scales and unquantized weights are rounded to {options.dtype}")


def _exported(form: str, made: "Exported") -> str:
    from coolbits.study.units import si_bytes

    return f"{form}, {si_bytes(made.bytes)}, {made.modules} layers read back as their codes stand"


def _print_outcome(outcome: "Outcome", out: Path) -> None:
    """Print what ran, one line for each kind of layer, then sizes and where it all is."""
    from rich.console import Console
    from rich.table import Table

    from coolbits.artifacts.progress import duration
    from coolbits.study.units import si_bytes

    kinds: dict[str, list[Result]] = {}
    for name, result in outcome.results.items():
        kinds.setdefault(_NUMBER.sub(".*", name), []).append(result)
    table = Table(box=None, pad_edge=False)
    for title in ("layers", "modules", "method", "fell back", "bits", "weight error", "loss / rtn", "seconds"):
        table.add_column(title, justify="left" if title in ("layers", "method") else "right", overflow="fold")
    for kind, results in kinds.items():
        table.add_row(kind, *_cells(results))
    if len(kinds) > 1:
        table.add_row("all", *_cells(list(outcome.results.values())))
    console = Console(highlight=False)
    console.width = max(console.width, 200)
    console.print(table, soft_wrap=True)
    if outcome.calibration is not None:
        sequences, length = outcome.calibration.tokens.tokens.shape
        tokens = outcome.calibration.tokens.count
        print(f"calibration: {outcome.calibration.source}, {sequences} sequences of {length}, {tokens:,} tokens")
    sizes = f"{si_bytes(outcome.bytes_before)} before, {si_bytes(outcome.bytes_after)} after"
    print(f"size: {sizes}; {outcome.summary['mean_bits']:.2f} bits a quantized weight, scales and zeros included")
    if outcome.summary.get("untied"):
        print("head: untied from the embedding, which keeps its weights; the model is larger by the head's codes")
    for name, result in outcome.results.items():
        if result.entry.fell_back:
            print(f"{name}: {result.entry.method} instead of {result.entry.requested}, {result.entry.reason}")
    print(f"{out}: written, {duration(outcome.seconds)}")


def _cells(results: "list[Result]") -> tuple[str, ...]:
    entries = [result.entry for result in results]
    ratios = [entry.proxy_loss / entry.rtn_proxy_loss for entry in entries if entry.proxy_loss and entry.rtn_proxy_loss]
    return (
        str(len(results)),
        _distinct(entry.method for entry in entries),
        str(sum(entry.fell_back for entry in entries)),
        _distinct(str(entry.bits) for entry in entries),
        f"{fsum(entry.relative_error for entry in entries) / len(entries):.3f}",
        f"{exp(fsum(map(log, ratios)) / len(ratios)):.3f}" if ratios else "-",
        f"{fsum(result.seconds for result in results):.1f}",
    )


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
