"""How long a training step of the default study takes: eager or compiled, and one job of two threads or two of one.

    python benchmarks/training_step.py [--repeats 5]

Every way is measured in turn, `repeats` times over, so that a noisy machine disturbs all alike. Printed: the median and
the range of milliseconds a step, and of tokens a second for all jobs together.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

WARM_STEPS, TIMED_STEPS = 5, 40
TOKENS, VOCABULARY = 200_000, 512
# name: (compiled, threads of a job, jobs side by side)
WAYS = {
    "eager, two jobs of one thread": (False, 1, 2),
    "compiled, two jobs of one thread": (True, 1, 2),
    "compiled, one job of two threads": (True, 2, 1),
}


def time_steps(shards: Path, compiled: bool) -> float:
    """Return the seconds of a step of the default study's trunk, on random tokens in the folder `shards`."""
    from coolbits.study.execution import Execution
    from coolbits.study.plan import make_plan
    from coolbits.study.recipes.training import Trajectory
    from coolbits.training.stage import start_training

    plan = make_plan(Path(__file__).resolve().parents[1] / "config.yaml")
    recipe = Trajectory.read(plan.of_kind("checkpoint")[0].recipe["trajectory"])
    steps = start_training(recipe, shards, Execution(device="cpu", compile=compiled)).train(WARM_STEPS + TIMED_STEPS)
    for _ in range(WARM_STEPS):
        next(steps)
    started = perf_counter()
    for _ in range(TIMED_STEPS):
        next(steps)
    return (perf_counter() - started) / TIMED_STEPS


def write_tokens(folder: Path) -> None:
    """Write a training split of random tokens: what a step costs does not depend on the text."""
    from coolbits.data.shards import write_shard

    tokens = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS, dtype=np.uint16)
    header = write_shard(folder / "train-00000.bin", [tokens], VOCABULARY)
    entry = {"file": "train-00000.bin", "tokens": TOKENS, "sha256": header.digest, "documents": 1, "bytes": TOKENS}
    index = {"train": [entry], "validation": [], "end_of_text_id": 0, "vocabulary_size": VOCABULARY}
    (folder / "index.json").write_text(json.dumps(index))


def side_by_side(folder: Path, compiled: bool, threads: int, jobs: int) -> float:
    """Return the mean seconds of a step of `jobs` processes that run at once."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, __file__, "--worker", str(folder), "--compiled", str(int(compiled))]
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(jobs)]
    return statistics.mean(float(worker.communicate()[0].split()[-1]) for worker in workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="times that every way is measured (default: 5)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compiled", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(time_steps(options.worker, bool(options.compiled)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokens(folder)
        side_by_side(folder, *WAYS["compiled, two jobs of one thread"])
        side_by_side(folder, *WAYS["compiled, one job of two threads"])
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, (compiled, threads, jobs) in WAYS.items():
                seconds[way].append(side_by_side(folder, compiled, threads, jobs))
    print(f"{'way':36} {'ms a step, median (range)':32} tokens a second, all jobs")
    for way, found in seconds.items():
        median = statistics.median(found)
        spread = f"{1e3 * median:.0f} ({1e3 * min(found):.0f} to {1e3 * max(found):.0f})"
        print(f"{way:36} {spread:32} {WAYS[way][2] * 2048 / median:,.0f}")


if __name__ == "__main__":
    main()
