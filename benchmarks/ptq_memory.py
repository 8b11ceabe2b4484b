"""How much memory quantizing takes, estimated and measured, on a CPU; and the estimate for models that need a GPU.

    python benchmarks/ptq_memory.py [--shapes llama-67m neox-89m ...] [--methods rtn gptq-layer ...] [--threads 1]
        [--json] [--out table.md]

Every measurement is a process of its own: a random model with weights in bfloat16 is written, the process imports,
notes its largest resident set so far, quantizes, and notes it again. The difference stands beside the estimate of
`coolbits.ptq.memory`. A second table gives what 32-billion-parameter models take, by estimate alone.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    PretrainedConfig,
    Qwen2Config,
)

from coolbits.ptq.checkpoint import Request, quantize_checkpoint
from coolbits.ptq.memory import estimate_peak, model_sizes
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Grid, Method
from coolbits.study.recipes.ptq import Quantized

GRID = Grid(bits=4, group_size=128)
# What is freed goes back at once: else up to 32 MB of each size of tensor stay, whatever the model's size.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
NO_TOKEN: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass(frozen=True)
class Shape:
    """A model to measure, and the calibration that it is shown."""

    config: PretrainedConfig
    calibration: Windows


@dataclass(frozen=True)
class Line:
    """Bytes of one measurement."""

    shape: str
    method: str
    estimated: int
    measured: int


SHAPES = {
    "llama-67m": Shape(
        LlamaConfig(
            vocab_size=32768,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=2,
            num_attention_heads=8,
            tie_word_embeddings=True,
            **NO_TOKEN,
        ),
        Windows(sequences=10, sequence_length=512),
    ),
    "neox-89m": Shape(
        GPTNeoXConfig(
            vocab_size=4096,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            **NO_TOKEN,
        ),
        Windows(sequences=8, sequence_length=512),
    ),
    "llama-12m": Shape(
        LlamaConfig(
            vocab_size=16384,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=4,
            **NO_TOKEN,
        ),
        Windows(sequences=32, sequence_length=1024),
    ),
}
LARGE = {
    "Qwen2.5-32B": Qwen2Config(
        vocab_size=152064,
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
    ),
    "OLMo2-32B": Olmo2Config(
        vocab_size=100352,
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
    ),
}


def methods(calibration: Windows) -> dict[str, Method]:
    """Return the methods by name."""
    return {
        "rtn": RTN(grid=GRID),
        "hqq": HQQ(grid=GRID.model_copy(update={"symmetric": False})),
        "gptq-layer": GPTQ(grid=GRID, calibration=calibration),
        "gptq-none": GPTQ(grid=GRID, sequential="none", calibration=calibration),
        "awq": AWQ(grid=GRID, steps=3, clip_steps=4, calibration=calibration),  # few steps: they take time alone
    }


def measure(shape: str, method: str, threads: int) -> Line:
    """Return the largest resident set of a process that quantizes, less what it was before."""
    config, calibration = SHAPES[shape].config, SHAPES[shape].calibration
    recipe = Quantized(method=methods(calibration)[method])
    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(Path(folder, "model"))
        tokens = torch.randint(0, config.vocab_size, (calibration.sequences, calibration.sequence_length))
        write_tokens(Tokens.of_equal_length(tokens), Path(folder))
        command = [sys.executable, __file__, "--work", folder, "--recipe", recipe.model_dump_json()]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"} | ALLOCATOR
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    estimated = estimate_peak(config, recipe, torch.bfloat16, "cpu").host
    return Line(shape, method, estimated, int(done.stdout.split()[-1]))


def work(folder: Path, recipe: str) -> None:
    """Quantize the model in `folder` and print by how many bytes the largest resident set grew."""
    model_sizes(AutoConfig.from_pretrained(folder / "model"))  # imports the model's code
    before = largest_resident_set()
    quantize_checkpoint([Request(Quantized.model_validate_json(recipe), folder)], folder / "model")
    print(largest_resident_set() - before)


def largest_resident_set() -> int:
    """Return its bytes, as Linux has them; `getrusage` would count the parent's, from before the process began."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measured_table(lines: list[Line]) -> list[str]:
    """Return the table of measurements."""
    head = ["| model | method | estimated, MiB | measured, MiB | measured / estimated |", "|---|---|---|---|---|"]
    return head + [
        f"| {line.shape} | {line.method} | {line.estimated / 2**20:.0f} | {line.measured / 2**20:.0f} "
        f"| {line.measured / line.estimated:.2f} |"
        for line in lines
    ]


def large_table() -> list[str]:
    """Return the table of estimates for models of 32 billion parameters, shown 128 x 2,048 tokens."""
    lines = ["| model, in bfloat16 | method | host, GiB | GPU, GiB |", "|---|---|---|---|"]
    for name, config in LARGE.items():
        for method, recipe in methods(Windows(sequences=128, sequence_length=2048)).items():
            peak = estimate_peak(config, Quantized(method=recipe))
            lines.append(f"| {name} | {method} | {peak.host / 2**30:.0f} | {peak.device / 2**30:.0f} |")
    return lines


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--methods", nargs="*", choices=methods(Windows()), default=list(methods(Windows())))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print measurements alone, as JSON")
    parser.add_argument("--out", type=Path, help="a file for the tables, besides the terminal")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.recipe)
        return
    lines = []
    for shape in options.shapes:
        for method in options.methods:
            lines.append(measure(shape, method, options.threads))
            print(lines[-1], file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([asdict(line) for line in lines]))
        return
    text = "\n".join([*measured_table(lines), "", *large_table()])
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
