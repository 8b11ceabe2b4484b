"""How long a step of each optimizer takes and how many bytes its states have, ours and its peers', side by side.

    python benchmarks/optimizers.py [--model gpt-162m] [--layers 2] [--device auto] [--rounds 7] [--out table.md]

Needs no data: the weights have a model's shapes, the gradients are random numbers. In every round each optimizer is
made anew, warmed up and timed, so that a noisy machine disturbs all alike and one at a time holds memory. A ratio is
that of a round's times: to the float32 variant of the same rule, and under AdamW to bitsandbytes too, if that is
measured. The bytes moved are the fewest that a step can do with: weights and states read and written, gradients read.
Their share of the memory's bandwidth, itself measured by copying, says how near a step comes to the floor: on a CPU
more than all of it if everything fits the caches, with Muon little of it, since Newton-Schulz computes. On a GPU the
Triton kernels run, on a CPU the compiled updates. Peers are measured if they can be imported
(envs/peers-optimizers.txt); one that fails is named with its reason and left out.
"""

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from coolbits.loops.allocator import keep_freed_memory
from coolbits.models.build import build_config
from coolbits.models.devices import choose_device
from coolbits.models.presets import PRESETS, preset
from coolbits.optim.build import build_optimizer
from coolbits.optim.groups import parameter_roles
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.training import Optimizer as Recipe

# To step no slower than this is a target for AdamW with 8-bit states.
RIVAL = "bitsandbytes AdamW8bit"
LR, WEIGHT_DECAY, BETAS, EPS, MOMENTUM = 1e-3, 0.1, (0.9, 0.95), 1e-8, 0.95
OURS = [
    *("AdamW-32", "AdamW-8L", "AdamW-8D", "AdamW-8D-b256"),
    *("Muon-32", "Muon-8L", "Muon-8D", "Muon-8L+AdamW-8D"),
    *("SGDM-32", "SGDM-8L", "SGDM-8D"),
]
VOCABULARY, MICRO_VOCABULARY = 50_257, 2048


@dataclass(frozen=True)
class Entry:
    """An optimizer: `make` returns its step and the bytes of its states, once it made a step."""

    name: str
    base: str  # name of the entry that ratios are to
    make: Callable[[PreTrainedModel], tuple[Callable[[], object], Callable[[], int]]]
    needs: str | None = None  # a module that must be there


@dataclass
class Measured:
    """Seconds of a step, the median of each round, and the bytes of the states."""

    seconds: list[float] = field(default_factory=list)
    state_bytes: int = 0


def ours(name: str) -> Entry:
    """Return our optimizer of that name."""

    def make(model: PreTrainedModel) -> tuple[Callable[[], object], Callable[[], int]]:
        recipe: Any = TypeAdapter(Recipe).validate_python(optimizer_preset(name) | {"weight_decay": WEIGHT_DECAY})
        optimizer = build_optimizer(model, recipe, LR, compiled=True)
        return lambda: optimizer.step(LR), lambda: sum(stored.bytes for stored in optimizer.stored_states())

    return Entry(name, name.partition("-")[0] + "-32", make)


def peer(name: str, base: str, needs: str, *makers: Callable[[PreTrainedModel], torch.optim.Optimizer]) -> Entry:
    """Return somebody else's optimizer, or several that share out the parameters."""

    def make(model: PreTrainedModel) -> tuple[Callable[[], object], Callable[[], int]]:
        optimizers = [maker(model) for maker in makers]
        return (
            lambda: [optimizer.step() for optimizer in optimizers],
            lambda: sum(tensor.nbytes for optimizer in optimizers for tensor in state_tensors(optimizer)),
        )

    return Entry(name, base, make, needs)


def peers() -> list[Entry]:
    """Return the peers, imported when they are made."""
    adam = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}

    def bitsandbytes(model: PreTrainedModel) -> torch.optim.Optimizer:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(model.parameters(), **adam)

    def torchao(model: PreTrainedModel) -> torch.optim.Optimizer:
        from torchao.optim import AdamW8bit

        return AdamW8bit(model.parameters(), **adam)

    def dion(model: PreTrainedModel) -> torch.optim.Optimizer:
        from dion import Muon

        matrices, others = split(model)
        groups = [{"params": matrices}, {"params": others, "algorithm": "adamw"}]
        settings = {"lr": LR, "mu": MOMENTUM, "betas": BETAS, "epsilon": EPS, "weight_decay": WEIGHT_DECAY}
        return Muon(groups, **settings, adjust_lr="rms_norm", use_triton=matrices[0].is_cuda)

    def muon(model: PreTrainedModel) -> torch.optim.Optimizer:
        settings = {"lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "nesterov": False}
        return torch.optim.Muon(split(model)[0], **settings, adjust_lr_fn="match_rms_adamw")

    return [
        peer(
            "torch AdamW, fused", "AdamW-32", "torch", lambda m: torch.optim.AdamW(m.parameters(), **adam, fused=True)
        ),
        peer(RIVAL, "AdamW-32", "bitsandbytes", bitsandbytes),
        peer("torchao AdamW8bit", "AdamW-32", "torchao", torchao),
        peer(
            "torch Muon + AdamW", "Muon-32", "torch", muon, lambda m: torch.optim.AdamW(split(m)[1], **adam, fused=True)
        ),
        peer("dion Muon + AdamW", "Muon-32", "dion", dion),
    ]


def split(model: PreTrainedModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices inside the blocks, which Muon updates, and all other parameters."""
    roles, sides = parameter_roles(model), ([], [])
    for name, parameter in model.named_parameters():
        sides[roles[name] != "matrix"].append(parameter)
    return sides


def state_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield what an optimizer of torch's keeps for its parameters, of quantized tensors what they are made of."""
    for state in optimizer.state.values():
        for value in state.values():
            if hasattr(value, "__tensor_flatten__"):
                yield from (getattr(value, name) for name in value.__tensor_flatten__()[0])
            elif isinstance(value, Tensor):
                yield value


def make_model(name: str, layers: int | None, device: str) -> PreTrainedModel:
    """Return a model of these shapes with random weights and gradients on the device."""
    vocabulary = MICRO_VOCABULARY if name.startswith("micro") else VOCABULARY
    overrides = {} if layers is None else {"num_hidden_layers": layers}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(build_config(preset(name, vocabulary, 2048, **overrides)))
    model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
            parameter.grad = torch.randn_like(parameter) * 1e-3
    return model


@contextmanager
def timed(device: str, seconds: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes, until the device is done."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = perf_counter()
    yield
    wait()
    seconds.append(perf_counter() - started)


def bandwidth(device: str, megabytes: int) -> float:
    """Return the bytes a second that copying moves, reads and writes counted: the best of a few."""
    source = torch.ones(megabytes << 18, device=device)
    target, seconds = torch.empty_like(source), []
    for _ in range(8):
        with timed(device, seconds):
            target.copy_(source)
    return 2 * source.nbytes / min(seconds)


def measure(entry: Entry, model: PreTrainedModel, device: str, steps: int, result: Measured) -> None:
    """Make the optimizer, warm it up, time its steps, and drop it."""
    step, state_bytes = entry.make(model)
    seconds: list[float] = []
    for _ in range(2):
        step()
    for _ in range(steps):
        with timed(device, seconds):
            step()
    result.seconds.append(statistics.median(seconds))
    result.state_bytes = state_bytes()
    del step, state_bytes
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure_all(
    entries: list[Entry], model: PreTrainedModel, device: str, rounds: int, steps: int
) -> dict[str, Measured]:
    """Return what was measured of each optimizer by its name, in turn so many rounds; not of peers that failed."""
    results = {entry.name: Measured() for entry in entries}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for entry in entries:
            if entry.name not in results:
                continue
            try:
                measure(entry, model, device, steps, results[entry.name])
            except Exception as error:
                if entry.needs is None:
                    raise
                # A peer that does not run here, as for want of a compiler or a GPU, says nothing of the others.
                reason = str(error).partition("\n")[0]
                print(f"{entry.name} is left out: {type(error).__name__}: {reason}", file=sys.stderr)
                del results[entry.name]
    return results


def table(entries: list[Entry], results: dict[str, Measured], parameters: int, bytes_a_second: float) -> str:
    """Return a Markdown table, one optimizer a line."""
    rivals = {"to float32": {entry.name: entry.base for entry in entries}}
    if RIVAL in results:
        rivals["to bitsandbytes"] = {entry.name: RIVAL for entry in entries if entry.base == "AdamW-32"}
    ratios = [f"{head}, median (range)" for head in rivals]
    heads = ["optimizer", "ms a step, median (range)", *ratios, "states, MB", "moved, MB", "bandwidth"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, result in results.items():
        moved = 12 * parameters + 2 * result.state_bytes
        share = moved / statistics.median(result.seconds) / bytes_a_second
        cells = [
            name,
            spread([1e3 * seconds for seconds in result.seconds], "{:.2f}"),
            *(ratio(result, results.get(rival.get(name, ""))) for rival in rivals.values()),
            *(f"{result.state_bytes / 1e6:,.1f}", f"{moved / 1e6:,.0f}", f"{share:.0%}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(result: Measured, rival: Measured | None) -> str:
    """Return the ratios of the rounds' times, or a dash if there is no rival."""
    if rival is None:
        return "–"
    return spread([own / other for own, other in zip(result.seconds, rival.seconds, strict=True)], "{:.2f}")


def spread(values: list[float], form: str) -> str:
    """Return "median (smallest to largest)"."""
    middle, least, most = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="gpt-162m", choices=PRESETS, metavar="NAME", help="a model preset")
    parser.add_argument("--layers", type=int, help="blocks, if not the preset's: less memory, like ratios")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7, help="times that every optimizer is measured (default: 7)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a round, whose median counts (default: 5)")
    parser.add_argument("--only", nargs="+", metavar="OPTIMIZER", help="names of the table, if not all")
    parser.add_argument("--out", type=Path, help="where to write the table; default: the terminal")
    options = parser.parse_args()
    device = choose_device(options.device)
    if device == "cpu":
        keep_freed_memory()
    entries = [ours(name) for name in OURS] + [
        entry for entry in peers() if entry.needs is None or find_spec(entry.needs) is not None
    ]
    if options.only:
        entries = [entry for entry in entries if entry.name in options.only]
    model = make_model(options.model, options.layers, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    results = measure_all(entries, model, device, options.rounds, options.steps)
    bytes_a_second = bandwidth(device, 1024 if device == "cuda" else 256)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    text = (
        f"{options.model}, {model.config.num_hidden_layers} layers, {parameters / 1e6:,.1f}M parameters; {machine}; "
        f"copying moves {bytes_a_second / 1e9:,.0f} GB/s; {options.rounds} rounds of {options.steps} steps; "
        f"PyTorch {torch.__version__}\n\n{table(entries, results, parameters, bytes_a_second)}\n"
    )
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
