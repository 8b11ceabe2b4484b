"""Compiles the launches of all updates and products for sm_90, on any machine, and prints a JSON list of what came out.

A script, for a process of its own: where there is no GPU, the others have Triton's interpreter. Nothing is launched.
"""

import json
import re
import subprocess
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from coolbits.optim import kernels
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.kernels import launch, product
from coolbits.optim.sgd import SGD


class Hopper:
    """As much of a driver as the compiler asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


compiled: list[triton.compiler.CompiledKernel] = []


def compile_only(kernel: JITFunction, grid: tuple[int, ...]) -> object:
    return lambda *arguments, **options: compiled.append(kernel.warmup(*arguments, grid=grid, **options))


def resources(kernel: triton.compiler.CompiledKernel) -> dict[str, int]:
    """What a thread takes: "REG" registers, and bytes of "STACK" and "LOCAL" memory, as where registers are spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}


def states(codec: Blockwise, like: list[torch.Tensor]) -> list[Parts]:
    return [codec.encode(torch.zeros_like(tensor)) for tensor in like]


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compile_only
    launch.require_device = product.require_device = lambda device: None  # the tensors are on the CPU
    weights = [torch.zeros(4096)]
    coarse, fine = [gradient.bfloat16() for gradient in weights], weights
    linear, dynamic = (
        (Blockwise(kind, True, block), Blockwise(kind, False, block))
        for kind, block in (("linear", 2048), ("dynamic", 256))
    )
    rule, step = Adam(0.9, 0.95, 1e-8, 0.1), torch.tensor(1.0)
    kernels.adam_step(weights, fine, states(linear[0], weights), states(linear[1], weights), linear, rule, step, 0.01)
    moments = states(dynamic[0], weights), states(dynamic[1], weights)
    kernels.adam_step(weights, coarse, *moments, dynamic, rule, step, 0.01)
    kernels.sgd_step(weights, fine, states(linear[0], weights), linear[0], SGD(0.9, True, 0.1), 0.01)
    kernels.momentum_step(fine, states(linear[0], weights), linear[0], 0.95, nesterov=True)
    square = torch.zeros(2, 512, 512, dtype=torch.bfloat16)
    kernels.gram(square, square, 2.0, -5.0)
    kernels.gram(torch.zeros(2, 512, 1024))
    found = [
        {"name": k.metadata.name, "shared": k.metadata.shared, "code": k.asm["ptx"], "resources": resources(k)}
        for k in compiled
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
