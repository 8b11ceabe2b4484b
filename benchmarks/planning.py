"""What a large study costs before anything runs: listing it, and a dry run of the workflow where all of it is made.

    python benchmarks/planning.py [--nodes 5000] [--profile] [--demand]

A study of about so many nodes, its artifacts fabricated, each with a small file, a manifest and a record. Printed: the
seconds of `coolbits plan` and of `snakemake -n`, which must say that there is nothing to do, and of the steps that
they consist of; all of it also in milliseconds a node. `--profile` names the dearest functions of those steps.
`--demand` has it exit with 1 if listing takes more than 10 s or the dry run more than 60 s.
"""

import argparse
import cProfile
import math
import os
import pstats
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import yaml

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.store import Store
from coolbits.stages import STAGES
from coolbits.study.plan import KINDS, make_plan
from coolbits.study.workflow import Workflow

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINTS, RATES = 10, 10
TOKENS = 2048 * 100
MOST_SECONDS = {"coolbits plan": 10, "snakemake -n": 60}


def study(nodes: int) -> dict[str, Any]:
    """Return a study of about so many nodes: trunks of ten checkpoints at ten rates, of as many seeds as it takes."""
    # Each checkpoint is quantized twice, and scored three times.
    seeds = math.ceil(nodes / (6 * CHECKPOINTS * RATES))
    grid = {"group_size": 64}
    return {
        "study": "large",
        "data": {"tokenizer": {"kind": "bpe", "vocabulary_size": 512}},
        "defaults": {
            "model": "micro-neox",
            "sequence_length": 64,
            "batch_tokens": 2048,
            "optimizer": {"kind": "adamw"},
            "seed": list(range(seeds)),
        },
        "runs": {
            "trunk": {
                "schedule": {"kind": "wsd", "warmup": 2048 * 5, "decay": TOKENS // CHECKPOINTS},
                "peak_lr": [0.001 * (number + 1) for number in range(RATES)],
                "tokens": TOKENS,
                "checkpoints": {"every": TOKENS // CHECKPOINTS},
            }
        },
        "quantizers": {f"rtn-w{bits}": {"method": {"kind": "rtn", "grid": {"bits": bits, **grid}}} for bits in (3, 4)},
        "evaluations": {"loss": {"measure": {"kind": "loss"}}},
        "figures": {"tokens": {"figure": "tokens"}},
    }


def fabricate(flow: Workflow) -> None:
    """Make every artifact of a plan, with little in it, and the files beside them that people look at."""
    stores = {kind: Store(flow.root, code_slice(STAGES[kind])) for kind in KINDS}
    for node in flow.plan.nodes:
        stores[node.kind].ensure(node, _build)
    for path in map(Path, flow.targets()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _build(out: Path) -> dict[str, Any]:
    (out / "content").write_text("as much as a number takes")
    return {}


def run(*command: str) -> str:
    """Run a module as a person would; return what it said."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def timed(label: str, nodes: int, work: Callable[[], Any], profile: bool = False) -> tuple[Any, float]:
    """Do something; print how long it took, and where the time went. Return what it gave, and the seconds."""
    profiler = cProfile.Profile()
    start = perf_counter()
    found = profiler.runcall(work) if profile else work()
    seconds = perf_counter() - start
    print(f"{label:42} {seconds:7.2f} s {1000 * seconds / nodes:8.3f} ms a node", flush=True)
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(25)
    return found, seconds


def too_long(took: dict[str, float]) -> list[str]:
    """Return a line for each command that took more seconds than it may."""
    return [
        f"{label}: {took[label]:.1f} s, at most {most} s wanted"
        for label, most in MOST_SECONDS.items()
        if took[label] > most
    ]


def main() -> None:
    """Fabricate the study, then time what looks at it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--demand", action="store_true", help="exit with 1 if a command takes too long")
    options = parser.parse_args()
    os.fsync = lambda _descriptor: None  # what is fabricated need not outlive a power cut
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "study.yaml"
        results = folder / "results"
        file.write_text(yaml.safe_dump(study(options.nodes)))
        count = len(make_plan(file).nodes)
        print(f"{count:,} nodes")
        flow, _ = timed("reading the study", count, lambda: Workflow.read(file, results), options.profile)
        timed("fabricating its artifacts", count, lambda: fabricate(flow))
        timed("looking at times", count, flow.settle, options.profile)
        timed("tasks for the rules", count, lambda: ask(flow), options.profile)
        timed("recipes and board", count, flow.start, options.profile)
        commands = {
            "coolbits plan": ("coolbits.cli", "plan", str(file), "--results", str(results)),
            "snakemake -n": ("snakemake", "-n", "--cores", "1", "--directory", name, "--configfile", str(file)),
        }
        took = {}
        for label, command in commands.items():
            said, took[label] = timed(label, count, lambda command=command: run(*command))
        if "Nothing to be done" not in said:
            raise SystemExit(said)
        if options.demand and (late := too_long(took)):
            raise SystemExit("\n".join(late))


def ask(flow: Workflow) -> None:
    """Ask for all that the rules ask of a task."""
    for kind in KINDS:
        for task in flow.tasks(kind):
            _ = (task.name, task.input, task.output, task.recipe, task.log, task.identity, task.resources)


if __name__ == "__main__":
    main()
