"""Compiles launches of the kernel for sm_90, on any machine, and prints a JSON list of what came out.

A script, for a process of its own: where there is no GPU, the others have Triton's interpreter. Nothing is launched.
"""

import json

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from coolbits.models.kernels.dequantize_matmul import dequantize_matmul


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


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compile_only
    dequantize_matmul.__globals__["require_device"] = lambda device: None  # the tensors are on the CPU
    outputs, inputs = 512, 1024
    for bits, group, rows, dtype, asymmetric in (
        (4, 128, 256, torch.bfloat16, False),
        (3, 64, 256, torch.float16, True),
        (4, 32, 1, torch.bfloat16, True),
        (3, inputs, 1, torch.float16, False),
        (4, 128, 64, torch.float32, True),
    ):
        codes = torch.zeros(outputs, inputs * bits // 8, dtype=torch.uint8)
        scales = torch.ones(outputs, inputs // group)
        zeros = torch.zeros(scales.shape, dtype=torch.uint8) if asymmetric else None
        dequantize_matmul(torch.zeros(rows, inputs, dtype=dtype), codes, scales, zeros, bits)
    print(json.dumps([{"shared": kernel.metadata.shared, "code": kernel.asm["ptx"]} for kernel in compiled]))


if __name__ == "__main__":
    main()
