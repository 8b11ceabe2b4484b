"""How long a product with packed codes takes on a GPU, beside the product with dequantized weights.

    python benchmarks/dequantize_matmul.py [--dtype bfloat16] [--rounds 20] [--out table.md]

Layers are those of Qwen2.5-7B and 32B, rows what one decoded token, a small batch and a window of evaluation have.
Both products are run in turns; times are medians over rounds, with a cache that holds none of the weights: each call
reads another copy of them, as another layer's would be. `error` is the largest difference, over the largest result.
It needs a GPU and Triton: nothing here has been timed on one yet.
"""

import argparse
import statistics
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from torch.nn import functional

from coolbits.models import kernels
from coolbits.models.packing import pack
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid

LAYERS = {"7B up": (18944, 3584), "7B down": (3584, 18944), "32B up": (27648, 5120), "32B down": (5120, 27648)}
ROWS = (1, 16, 2048)
_CACHE_BYTES = 256 << 20  # more than the second-level cache of any GPU


def milliseconds(runs: list[Callable[[], torch.Tensor]], rounds: int) -> list[float]:
    """Return the median time of each run, all of them in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 3):
        for run, own in zip(runs, times, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            if number >= 3:
                own.append(start.elapsed_time(end))
    return [statistics.median(own) for own in times]


def compare(name: str, rows: int, bits: int, dtype: torch.dtype, rounds: int) -> str:
    """Return a line of the table."""
    outputs, inputs = LAYERS[name]
    torch.manual_seed(0)
    x = torch.randn(rows, inputs, device="cuda", dtype=dtype)
    layer = round_to_nearest(torch.randn(outputs, inputs, device="cuda"), Grid(bits=bits, group_size=128))
    codes, weight = pack(layer.codes, bits), layer.weight().to(dtype)
    copies = [cycle([tensor.clone() for _ in range(1 + _CACHE_BYTES // tensor.nbytes)]) for tensor in (codes, weight)]
    packed, dense = copies
    runs: list[Callable[[], torch.Tensor]] = [
        lambda: kernels.dequantize_matmul(x, next(packed), layer.scales, None, bits),
        lambda: functional.linear(x, next(dense)),
    ]
    found, expected = (run() for run in runs)
    error = float((found - expected).abs().max() / expected.abs().max())
    ours, theirs = milliseconds(runs, rounds)
    return f"| {name} | {rows} | {bits} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} | {error:.1e} |"


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="a file for the table, besides the terminal")
    options = parser.parse_args()
    if not (torch.cuda.is_available() and kernels.available()):
        raise SystemExit("benchmarks/dequantize_matmul.py: it takes a GPU and Triton, here is not both")
    lines = [
        "| layer | rows | bits | packed, ms | dequantized, ms | speed-up | error |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name in LAYERS:
        for rows in ROWS:
            for bits in (4, 3):
                lines.append(compare(name, rows, bits, getattr(torch, options.dtype), options.rounds))
                print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
