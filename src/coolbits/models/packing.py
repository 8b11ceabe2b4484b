"""Dense bit packing: codes of b bits take b bits, whatever b is.

Eight codes, a byte each, are one 64-bit integer; in three steps, each for twice as many codes, they move next to each
other, until they are its lowest b bytes.
"""

from collections.abc import Iterator

import torch

_FIELDS = (8, 16, 32)  # bits of what one, two and four codes are given before they move


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
    if bits == 8:
        return codes.clone(memory_format=torch.contiguous_format)
    rows, columns = codes.shape
    eights = codes.new_zeros(rows, -(-columns // 8) * 8)
    eights[:, :columns] = codes
    words = eights.view(torch.int64)
    for low, gap, used in _moves(bits):
        high = (words >> gap).bitwise_and_(low << used)
        words.bitwise_and_(low).bitwise_or_(high)
    return eights.view(rows, -1, 8)[..., :bits].flatten(1)[:, : -(-columns * bits // 8)].contiguous()


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Undo `pack`: uint8 [rows, bytes] to codes, uint8 [rows, columns]."""
    if bits == 8:
        return packed[:, :columns].clone(memory_format=torch.contiguous_format)
    rows, count = packed.shape[0], -(-columns // 8)
    whole = packed.new_zeros(rows, count * bits)
    whole[:, : packed.shape[1]] = packed
    eights = packed.new_zeros(rows, count, 8)
    eights[..., :bits] = whole.view(rows, count, bits)
    words = eights.view(torch.int64)
    for low, gap, used in reversed([*_moves(bits)]):
        high = (words << gap).bitwise_and_(low << used + gap)
        words.bitwise_and_(low).bitwise_or_(high)
    return eights.flatten(1)[:, :columns].contiguous()


def _moves(bits: int) -> Iterator[tuple[int, int, int]]:
    """Yield what each step keeps of the lower of two neighbours, by how much the upper one moves, and to which bit."""
    for step, field in enumerate(_FIELDS):
        used = bits << step
        low = sum(((1 << used) - 1) << place for place in range(0, 64, 2 * field))
        yield low, field - used, used
