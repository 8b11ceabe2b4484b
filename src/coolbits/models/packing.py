"""Dense bit packing: codes of b bits take b bits, whatever b is."""

import numpy as np
import torch


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack each row of `codes` into bytes, least significant bit first; a row is padded to a whole byte.

    Args:
        codes: uint8 [rows, columns], every value below 2**bits.
        bits: 1 to 8.

    Returns:
        uint8 [rows, ceil(columns * bits / 8)], on the CPU.

    Raises:
        ValueError: if a code does not fit.
    """
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"a code of {int(codes.max())} does not fit {bits} bits")
    rows, columns = codes.shape
    planes = np.unpackbits(codes.cpu().numpy()[..., None], axis=-1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(planes.reshape(rows, columns * bits), axis=-1, bitorder="little"))


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Undo `pack`: uint8 [rows, bytes] to codes, uint8 [rows, columns]."""
    rows = packed.shape[0]
    planes = np.unpackbits(packed.cpu().numpy(), axis=-1, count=columns * bits, bitorder="little")
    codes = np.packbits(planes.reshape(rows, columns, bits), axis=-1, bitorder="little")
    return torch.from_numpy(codes.reshape(rows, columns))
