"""The dynamic codebooks of 8-bit optimizers (Dettmers et al. 2022, arXiv 2110.02861) and the entry nearest to a number.

An entry has a decade and a place within it: decade d = 0..6 holds the middles of 2^d equal parts (2^(d+1) if unsigned)
of 0.1..1, times 10^(d-6). Small numbers are kept to within their magnitude, large ones finely.
"""

from functools import cache

import torch
from torch import Tensor

_DECADES = 7


@cache
def dynamic_codebook(signed: bool) -> Tensor:
    """Return the 256 entries in rising order, float32; to be read only.

    Signed they reach from -0.99297 to 1 (there is no -1) with zero at 127 and smallest positive entry 5.5e-7; unsigned
    from 0 to 1 with smallest positive entry 3.25e-7. Bit for bit those of bitsandbytes' `create_dynamic_map`.
    """
    entries = [0.0, 1.0]
    for decade in range(_DECADES):
        parts = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1, parts + 1, dtype=torch.float32, device="cpu")
        middles = 10.0 ** (decade - _DECADES + 1) * ((edges[:-1] + edges[1:]) / 2)
        entries += middles.tolist() + ((-middles).tolist() if signed else [])
    return torch.tensor(sorted(entries), dtype=torch.float32, device="cpu")


@cache
def middles(signed: bool) -> Tensor:
    """Return the middles between entries rounded down, float32 [255]: a float32 above one is above the exact middle."""
    entries = dynamic_codebook(signed).double()
    exact = (entries[1:] + entries[:-1]) / 2
    rounded = exact.float()
    return torch.where(rounded.double() > exact, rounded.nextafter(torch.tensor(-torch.inf, device="cpu")), rounded)


def nearest(ratios: Tensor, signed: bool) -> Tensor:
    """Return the index (uint8) of the entry nearest to each float32 ratio in [-1, 1], of two the lower; exactly.

    Unsigned, ratios must not be negative. Among the magnitudes, an entry's place is a function of its value that is
    straight within each decade, and steeper in lower ones: the least of seven straight lines. It tells the entries on
    both sides of a ratio, with half of what lies between them to spare for rounding; the middle of the two decides.
    """
    sizes = ratios.abs()
    position = sizes.new_full((), torch.inf)
    for decade in range(_DECADES):
        parts = 2.0**decade
        position = torch.minimum(position, sizes * (parts * 10.0 ** (_DECADES - 1 - decade) / 0.9) + parts * 8 / 9)
    place = (position - 0.5 if signed else 2 * position - 1.5).int().clamp(0, 127 if signed else 254)
    below = torch.where(ratios < 0, 126 - place, 127 + place).clamp(min=0) if signed else place
    return (below + (ratios > middles(signed).to(ratios.device)[below])).to(torch.uint8)
