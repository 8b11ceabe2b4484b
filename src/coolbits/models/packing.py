"""Dense bit packing: codes of b bits take b bits, whatever b is."""

import torch
from torch.nn.functional import pad


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack each row of `codes` into bytes, least significant bit first; a row is padded to a whole byte.

    Args:
        codes: uint8 [rows, columns], every value below 2**bits.
        bits: 1 to 8.

    Returns:
        uint8 [rows, ceil(columns * bits / 8)], on the device of `codes`.

    Raises:
        ValueError: if a code does not fit.
    """
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"a code of {int(codes.max())} does not fit {bits} bits")
    rows, columns = codes.shape
    eights = pad(codes, (0, -columns % 8)).view(rows, -1, 8)  # eight codes take as many bytes as a code has bits
    packed = codes.new_zeros(rows, eights.shape[1], bits)
    for index in range(8):
        byte, shift = divmod(index * bits, 8)
        packed[..., byte] |= eights[..., index] << shift
        if shift + bits > 8:
            packed[..., byte + 1] |= eights[..., index] >> (8 - shift)
    return packed.flatten(1)[:, : -(-columns * bits // 8)].contiguous()


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Undo `pack`: uint8 [rows, bytes] to codes, uint8 [rows, columns]."""
    eights = pad(packed, (0, -packed.shape[1] % bits)).view(packed.shape[0], -1, bits)
    codes = packed.new_empty(packed.shape[0], eights.shape[1], 8)
    for index in range(8):
        byte, shift = divmod(index * bits, 8)
        code = eights[..., byte] >> shift
        if shift + bits > 8:
            code |= eights[..., byte + 1] << (8 - shift)
        codes[..., index] = code & ((1 << bits) - 1)
    return codes.flatten(1)[:, :columns].contiguous()
