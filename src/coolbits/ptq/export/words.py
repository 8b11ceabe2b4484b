"""Codes in 32-bit words, densely: code i of a row takes the bits from i * bits on, across words where it must.

Compressed-tensors and the GPTQ format agree on this, for every number of bits; at 3 bits, 32 codes take 3 words.
"""

import torch

from coolbits.models.packing import pack

_WORD_BITS = 32


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack each row of codes, uint8 [rows, columns], into words: int32 [rows, ceil(columns * bits / 32)]."""
    packed = pack(codes, bits)
    padded = packed.new_zeros(len(packed), -(-packed.shape[1] // 4) * 4)
    padded[:, : packed.shape[1]] = packed
    return padded.view(torch.int32)


def unpack_words(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Read codes back from int32 [rows, words] by shifting and masking: uint8 [rows, columns].

    It shares nothing with `pack_words`, whose result it is there to check.
    """
    start = torch.arange(columns) * bits
    word, shift = start // _WORD_BITS, start % _WORD_BITS
    unsigned = words.long() & 0xFFFFFFFF
    following = torch.nn.functional.pad(unsigned, (0, 1))[:, word + 1]  # of the last word, nothing
    # Of 64 bits only the low 40 can matter: a code starts in the low word and has 8 bits at most.
    wide = unsigned[:, word] | ((following & 0xFF) << _WORD_BITS)
    return ((wide >> shift) & ((1 << bits) - 1)).to(torch.uint8)
