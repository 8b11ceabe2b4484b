"""How long quantizing a checkpoint takes, ours and its peers', side by side; and what sharing recipes saves.

    python benchmarks/ptq.py MODEL --calibration FOLDER [--rounds 5] [--threads 2] [--out table.md]
        [--llmcompressor peers/bin/python] [--gptqmodel peers-gptqmodel/bin/python]

MODEL is a Hugging Face directory, FOLDER a calibration artifact (tokens.safetensors). Libraries need environments of
their own (envs/peers-*.txt): each is a process of the Python that is given for it, which imports, reads the model and
quantizes once before it is timed. Then, round by round, one after the other quantizes the same checkpoint by the same
method, calibration and settings; what is timed is the way from the model in memory to quantized weights in memory. A
ratio is that of one round's times. Libraries run GPTQ in float32: so do we against them, and in float64, our default,
once more. AWQ finds its scales in a race, and once more as libraries do. `recipes` times GPTQ at 2, 3 and 4 bits and
two group sizes against one of them, in float64.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import libraries
import torch
from libraries import BLOCK, DAMPING, GROUP

from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.models.files import load_model
from coolbits.ptq.checkpoint import Request, quantize_model
from coolbits.study.recipes.ptq import Quantized

Run = Callable[[], float]
OTHER_GROUP = 32


@dataclass(frozen=True)
class Contest:
    """The same method by us and by a peer: the names under which `WORKERS` knows the two."""

    name: str
    ours: str
    peer: str
    library: str


CONTESTS = (
    Contest("RTN, 4 bits, symmetric", "rtn", "llmcompressor-rtn", "llmcompressor"),
    Contest(
        "GPTQ, 4 bits, natural order, static groups, block by block",
        "gptq-natural",
        "llmcompressor-natural",
        "llmcompressor",
    ),
    Contest(
        "the same in float64",
        "gptq-natural-float64",
        "llmcompressor-natural",
        "llmcompressor",
    ),
    Contest("GPTQ, 4 bits, static order, block by block", "gptq-static", "llmcompressor-static", "llmcompressor"),
    Contest("AWQ, 4 bits, asymmetric, no clipping", "awq", "llmcompressor-awq", "llmcompressor"),
    Contest("the same, every scaling charged everything", "awq-exhaustive", "llmcompressor-awq", "llmcompressor"),
    Contest("GPTQ, 4 bits, activation order, layer by layer", "gptq-activation", "gptqmodel-activation", "gptqmodel"),
    Contest("the same in float64", "gptq-activation-float64", "gptqmodel-activation", "gptqmodel"),
    Contest("GPTQ, 4 bits, group-aware order, layer by layer", "gptq-group-aware", "gptqmodel-aware", "gptqmodel"),
)


def ours(model: Path, calibration: Path, *methods: dict[str, Any]) -> Run:
    """Return a run of our own code by these methods."""
    requests = [Request(Quantized.read({"method": method}), calibration) for method in methods]
    loaded = load_model(model, "cpu", torch.float32)
    keep_little_freed_memory()  # as `coolbits quantize` and its stage do

    def run() -> float:
        start = perf_counter()
        quantize_model(requests, loaded)
        return perf_counter() - start

    return run


def gptq(order: str, sequential: str, bits: int = 4, group: int = GROUP, scales: str = "current") -> dict[str, Any]:
    """Return our GPTQ with these settings; `scales` may be "static", too."""
    grid = {"bits": bits, "group_size": group}
    found = {"static_groups": True} if scales == "static" else {"scales": scales}
    settings = {"damping": DAMPING, "block_size": BLOCK, **found}
    return {"kind": "gptq", "grid": grid, "order": order, "sequential": sequential, **settings}


def llmcompressor(model: Path, calibration: Path, name: str) -> Run:
    """Return a run of llm-compressor."""
    quantize = libraries.llmcompressor(calibration, name)

    def run() -> float:
        loaded = load_model(model, "cpu", torch.float32)
        start = perf_counter()
        quantize(loaded)
        return perf_counter() - start

    return run


def gptqmodel(model: Path, calibration: Path, name: str) -> Run:
    """Return a run of GPTQModel."""

    def run() -> float:
        _, quantize = libraries.gptqmodel(model, calibration, name)
        start = perf_counter()
        quantize()
        return perf_counter() - start

    return run


AWQ = {
    "kind": "awq",
    "search": "exhaustive",
    "clip": False,
    "shared_channels": False,
    "grid": {"bits": 4, "group_size": GROUP, "symmetric": False},
}
SHARED = [gptq("activation", "none", bits, group) for bits in (2, 3, 4) for group in (GROUP, OTHER_GROUP)]
FLOAT32 = {"precision": "float32"}
WORKERS: dict[str, Callable[[Path, Path], Run]] = {
    "rtn": lambda *paths: ours(*paths, {"kind": "rtn", "grid": {"bits": 4, "group_size": GROUP}}),
    "gptq-natural": lambda *paths: ours(*paths, gptq("natural", "block", scales="static") | FLOAT32),
    "gptq-natural-float64": lambda *paths: ours(*paths, gptq("natural", "block", scales="static")),
    "gptq-static": lambda *paths: ours(*paths, gptq("activation", "block", scales="static") | FLOAT32),
    "gptq-activation": lambda *paths: ours(*paths, gptq("activation", "layer", scales="block") | FLOAT32),
    "gptq-activation-float64": lambda *paths: ours(*paths, gptq("activation", "layer", scales="block")),
    "gptq-group-aware": lambda *paths: ours(*paths, gptq("group-aware", "layer", scales="block") | FLOAT32),
    "awq": lambda *paths: ours(*paths, AWQ | {"search": "race"}),
    "awq-exhaustive": lambda *paths: ours(*paths, AWQ),
    "recipe": lambda *paths: ours(*paths, gptq("activation", "none", 4, GROUP)),
    "recipes": lambda *paths: ours(*paths, *SHARED),
    "llmcompressor-rtn": lambda *paths: llmcompressor(*paths, "rtn"),
    "llmcompressor-natural": lambda *paths: llmcompressor(*paths, "natural"),
    "llmcompressor-static": lambda *paths: llmcompressor(*paths, "static"),
    "llmcompressor-awq": lambda *paths: llmcompressor(*paths, "awq"),
    "gptqmodel-activation": lambda *paths: gptqmodel(*paths, "activation"),
    "gptqmodel-aware": lambda *paths: gptqmodel(*paths, "group-aware"),
}


class Worker:
    """A process that quantizes once a line that it reads, and answers with the seconds."""

    def __init__(self, name: str, python: str, options: argparse.Namespace) -> None:
        command = [python, __file__, str(options.model), "--calibration", str(options.calibration), "--work", name]
        threads = str(options.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"}
        log = os.open(options.logs / f"{name}.log" if options.logs else os.devnull, os.O_WRONLY | os.O_CREAT)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        os.close(log)
        self.name = name

    def seconds(self) -> float:
        """Return the seconds of one quantization.

        Raises:
            ChildProcessError: if the process ended: the library refuses the model, or is not there.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise ChildProcessError(self.name)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def work(run: Run) -> None:
    """Quantize once a line of the standard input."""
    for _ in sys.stdin:
        print(f"seconds {run():.6f}", flush=True)


def contest(first: Worker, second: Worker, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of both, round by round, in turns, after one to warm up; none if one of them cannot do it."""
    try:
        first.seconds(), second.seconds()  # here and not when they start: side by side both would crawl
        return [(first.seconds(), second.seconds()) for _ in range(rounds)]
    except ChildProcessError as error:
        print(f"{error} ended: its reason is in --logs", file=sys.stderr)
        return []
    finally:
        first.close()
        second.close()


def line(name: str, times: list[tuple[float, float]], peer: str) -> str:
    """Return a line of the table: medians, and the ratio's median and range."""
    if not times:
        return f"| {name} | | {peer} | cannot | |"
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(second / first for first, second in times)
    spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
    return f"| {name} | {mine:.2f} | {peer} | {theirs:.2f} | {spread} |"


def main() -> None:
    """Run the contests for which there is a Python, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--llmcompressor", help="a Python that has it")
    parser.add_argument("--gptqmodel", help="a Python that has it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    names = [*(match.ours for match in CONTESTS), "recipes"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="lines, by our side's name")
    parser.add_argument("--logs", type=Path, help="a folder for what the processes print")
    parser.add_argument("--out", type=Path, help="a file for the table, besides the terminal")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(WORKERS[options.work](options.model, options.calibration))
        return
    lines = ["| method | ours, s | peer | its time, s | peer / ours (range) |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    for match in CONTESTS:
        python = getattr(options, match.library)
        if python and match.ours in options.only:
            pair = Worker(match.ours, sys.executable, options), Worker(match.peer, python, options)
            lines.append(line(match.name, contest(*pair, options.rounds), match.library))
            print(lines[-1], flush=True)
    if "recipes" in options.only:
        pair = Worker("recipe", sys.executable, options), Worker("recipes", sys.executable, options)
        lines.append(line("GPTQ, one recipe", contest(*pair, options.rounds), f"ours, {len(SHARED)} recipes"))
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
