"""One checkpoint quantized by us and by the libraries, shown the same tokens: how far the results agree.

    python benchmarks/agreement.py MODEL SHARDS [--calibration FOLDER] [--llmcompressor PYTHON] [--gptqmodel PYTHON]
        [--bitsandbytes PYTHON] [--hqq PYTHON] [--torchao PYTHON] [--only NAME ...] [--logs FOLDER] [--out table.md]

MODEL is a Hugging Face directory, SHARDS a folder of its token shards: windows of the training split calibrate, unless
an artifact in FOLDER does, and windows of the validation split are held out. A library runs in the Python that is given
for it (envs/peers-*.txt), with coolbits beside it, and hands back dequantized weights. Printed, a line a contest:

- weights that are equal, in percent, and of the layer that has fewest: within 0.1% of the largest of their row, which
  is less than half a step of any grid here, and more than float16 scales lose; a code under another scale is none;
- the largest difference, in percent of the largest weight of its row;
- the proxy loss of theirs over ours under the unquantized model's Hessians, the geometric mean of the layers and the
  range; none for AWQ, whose weights are scaled;
- cross-entropy of the held-out tokens, nats a token. Models of bitsandbytes, hqq and torchao run as they are, in the
  library; of others the dequantized weights do. Last, the difference as a share of what our quantization costs.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from libraries import WORKERS, Weights
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from coolbits.data.shards import open_stream
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, apply_model, weight_matrix
from coolbits.ptq.calibration import gather_hessians
from coolbits.ptq.calibration_set import draw_windows
from coolbits.ptq.checkpoint import Request, quantize_model, rounding_of
from coolbits.ptq.ledger import output_loss
from coolbits.ptq.tokens import Tokens, read_tokens, write_tokens
from coolbits.ptq.tracing import trace_model
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.ptq import Quantized
from ptq import AWQ, GROUP, gptq

LOSS = "held-out loss"  # beside the weights in a worker's file
GRID = {"bits": 4, "group_size": GROUP}
EQUAL = 1e-3
HEADINGS = (
    "method",
    "library",
    "equal weights, % (fewest)",
    "largest difference, %",
    "proxy loss, theirs / ours (range)",
    "cross-entropy, ours",
    "theirs",
    "difference, % of the cost",
)


@dataclass(frozen=True)
class Contest:
    """A method as our recipe has it, and the name under which the library's worker knows it."""

    title: str
    method: dict[str, Any]
    library: str
    name: str
    activations: dict[str, Any] | None = None


CONTESTS = (
    Contest("RTN", {"kind": "rtn", "grid": GRID}, "llmcompressor", "rtn"),
    Contest(
        "GPTQ, natural order, static groups", gptq("natural", "block", scales="static"), "llmcompressor", "natural"
    ),
    Contest("GPTQ, static order", gptq("activation", "block", scales="static"), "llmcompressor", "static"),
    Contest("AWQ, no clipping", AWQ, "llmcompressor", "awq"),
    # its exponents are i / 20; it does not try to scale nothing, as ours does first
    Contest("AWQ, with clipping", AWQ | {"clip": True, "steps": 21, "largest_exponent": 0.95}, "gptqmodel", "awq"),
    Contest("GPTQ, activation order", gptq("activation", "layer", scales="block"), "gptqmodel", "activation"),
    Contest("GPTQ, group-aware order", gptq("group-aware", "layer", scales="block"), "gptqmodel", "group-aware"),
    Contest(
        "GPTQ, activation order, a scale a row",
        gptq("activation", "layer", scales="block") | {"grid": {"bits": 4}},
        "gptqmodel",
        "row",
    ),
    Contest("NF4", {"kind": "nf4"}, "bitsandbytes", "nf4"),
    Contest("FP4", {"kind": "fp4"}, "bitsandbytes", "fp4"),
    Contest("LLM.int8()", {"kind": "int8"}, "bitsandbytes", "int8"),
    Contest("HQQ", {"kind": "hqq", "grid": GRID | {"symmetric": False}}, "hqq", "hqq"),
    Contest("RTN", {"kind": "rtn", "grid": GRID}, "torchao", "symmetric"),
    Contest("RTN, asymmetric", {"kind": "rtn", "grid": GRID | {"symmetric": False}}, "torchao", "asymmetric"),
    Contest(
        "RTN, 8 bits a row, tokens of 8 bits", {"kind": "rtn", "grid": {"bits": 8}}, "torchao", "w8a8", {"bits": 8}
    ),
)


@torch.inference_mode()
def loss(model: nn.Module, tokens: torch.Tensor) -> float:
    """Return the cross-entropy of tokens [sequences, length], nats a token."""
    batches = tokens.split(32)
    sums = [float(model(input_ids=batch, labels=batch).loss) * len(batch) for batch in batches]
    return sum(sums) / len(tokens)


def work(options: argparse.Namespace) -> None:
    """Quantize by a library, in its own process, into a file."""
    library, name = options.work
    weights, runs = WORKERS[library](options.model, options.calibration, name)
    kept = {key: tensor.float().contiguous().clone() for key, tensor in weights.items()}
    if runs is not None:
        kept[LOSS] = torch.tensor(loss(runs, read_tokens(options.held_out).tokens), dtype=torch.float64)
    save_file(kept, options.out)


def ask(contest: Contest, python: str, options: argparse.Namespace, folder: Path) -> Weights | None:
    """Return what a library's process gives, or None if it fails: it refuses the model, or is not there."""
    out = folder / f"{contest.library}-{contest.name}.safetensors"
    command = [
        python,
        str(Path(__file__).resolve()),
        str(options.model),
        str(options.shards),
        "--calibration",
        str(options.calibration),
    ]
    command += ["--held-out", str(options.held_out), "--out", str(out), "--work", contest.library, contest.name]
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"}
    log = options.logs / f"{out.stem}.log" if options.logs else Path(os.devnull)
    with log.open("w") as stream:
        code = subprocess.run(
            command, stdout=stream, stderr=stream, env=environment, cwd=folder, check=False
        ).returncode
    return load_file(out) if code == 0 else None


@torch.inference_mode()
def hessians_of(model: PreTrainedModel, calibration: Tokens) -> Weights:
    """Return the Hessian of each layer in the unquantized model."""

    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, calibration)
    inputs, found = trace.inputs, {}
    for block in trace.blocks:
        firsts = {group[0]: linears[group[0]] for group in block.groups}
        hessians, inputs = gather_hessians(block, inputs, firsts)
        found |= {name: hessians[group[0]] for group in block.groups for name in group}
    return found


@dataclass(frozen=True)
class Referee:
    """The unquantized model, and what both sides are measured by."""

    model: PreTrainedModel
    calibration: Path
    held_out: torch.Tensor  # int64 [sequences, length]
    hessians: Mapping[str, torch.Tensor]
    loss: float

    def line(self, contest: Contest, theirs: Weights) -> tuple[str, ...]:
        """Quantize by our recipe, and return the cells of the contest."""

        recipe = Quantized.read({"method": contest.method, "activations": contest.activations})
        (made,) = quantize_model([Request(recipe, self.calibration)], self.model)
        layers = {name: result.layer for name, result in made.results.items()}
        ours = {name: layer.weight() for name, layer in layers.items()}
        own_loss = self._loss(QuantizedModel(layers, made.replaced, rounding_of(recipe)))
        their_loss = float(theirs[LOSS]) if LOSS in theirs else self._loss_of_weights(theirs)
        pairs = {name: (weight, theirs[f"{name}.weight"]) for name, weight in ours.items()}
        differences = {name: _difference(*pair) for name, pair in pairs.items()}
        equal = {name: float((each < EQUAL).float().mean()) for name, each in differences.items()}
        sizes = {name: each.numel() for name, each in differences.items()}
        share = sum(equal[name] * size for name, size in sizes.items()) / sum(sizes.values())
        ratios = [] if contest.name == "awq" else [self._ratio(name, *pair) for name, pair in pairs.items()]
        return (
            contest.title,
            contest.library,
            f"{100 * share:.2f} ({100 * min(equal.values()):.2f})",
            f"{100 * max(float(each.max()) for each in differences.values()):.4f}",
            f"{geometric_mean(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})" if ratios else "",
            f"{own_loss:.5f}",
            f"{their_loss:.5f}",
            f"{100 * (their_loss - own_loss) / (own_loss - self.loss):+.2f}",
        )

    def _loss(self, quantized: QuantizedModel) -> float:

        model = deepcopy(self.model)
        apply_model(model, quantized)
        return loss(model, self.held_out)

    def _loss_of_weights(self, weights: Weights) -> float:
        return self._loss(QuantizedModel({}, weights))

    def _ratio(self, name: str, ours: torch.Tensor, theirs: torch.Tensor) -> float:

        weight = weight_matrix(self.model.get_submodule(name)).double()
        return output_loss(weight - theirs, self.hessians[name]) / output_loss(weight - ours, self.hessians[name])


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return how far two weights [outputs, inputs] lie apart, as shares of our largest of the row."""
    return (ours - theirs).abs() / ours.abs().amax(1, keepdim=True).clamp_min(1e-30)


def prepare(options: argparse.Namespace, folder: Path) -> Referee:
    """Write the tokens that both sides see, and measure the unquantized model."""

    options.held_out = folder / "held-out"
    options.calibration = options.calibration or folder / "calibration"
    drawn = {options.held_out: ("validation", options.windows), folder / "calibration": ("train", options.sequences)}
    for place, (split, sequences) in drawn.items():
        place.mkdir()
        windows = Windows(sequences=sequences, sequence_length=options.sequence_length)
        write_tokens(draw_windows(open_stream(options.shards, split), windows), place)
    model, held_out = load_model(options.model), read_tokens(options.held_out).tokens
    calibration = read_tokens(options.calibration)
    return Referee(model, options.calibration, held_out, hessians_of(model, calibration), loss(model, held_out))


def main() -> None:
    """Run the contests for which there is a Python, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=lambda given: Path(given).resolve())
    parser.add_argument("shards", type=lambda given: Path(given).resolve())
    parser.add_argument(
        "--calibration", type=lambda given: Path(given).resolve(), help="an artifact of sequences of one length"
    )
    parser.add_argument("--sequences", type=int, default=128, help="windows of the training split (default: 128)")
    parser.add_argument("--sequence-length", type=int, default=64, help="tokens of a window (default: 64)")
    parser.add_argument("--windows", type=int, default=512, help="windows held out (default: 512)")
    for library in WORKERS:
        parser.add_argument(f"--{library}", help="a Python that has it")
    parser.add_argument("--only", nargs="*", help="names of contests: rtn, awq, nf4, ...")
    parser.add_argument("--logs", type=Path, help="a folder for what the processes print")
    parser.add_argument("--out", type=Path, help="a file for the table, besides the terminal")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--held-out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    with TemporaryDirectory() as folder:
        referee = prepare(options, Path(folder))
        lines = [f"Unquantized: {referee.loss:.5f} nats a token.", ""]
        lines += ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
        print("\n".join(lines), flush=True)
        for contest in CONTESTS:
            python = getattr(options, contest.library)
            if not python or (options.only and contest.name not in options.only):
                continue
            theirs = ask(contest, python, options, Path(folder))
            cells = (contest.title, contest.library, "cannot") if theirs is None else referee.line(contest, theirs)
            if theirs is None:
                print(f"{contest.name} failed: the reason is in --logs", file=sys.stderr)
            lines.append("| " + " | ".join([*cells, *[""] * (len(HEADINGS) - len(cells))]) + " |")
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
