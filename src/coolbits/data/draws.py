"""Drawing documents up to a size, in one reading: those that come first in an order by hashes or by seed."""

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import TypeVar

_Item = TypeVar("_Item")


def first_filling(found: Iterable[tuple[float, int, _Item]], enough: int) -> list[tuple[int, _Item]]:
    """Return size and item of those of `found` (key, size, item) with the smallest keys, in the order of the keys.

    As few as are `enough` by their sizes together, or all. Items are read once, and memory holds those drawn so far.
    """
    heap: list[tuple[float, int, int, _Item]] = []  # keys are negated: on top is the one to give up
    held = 0
    for place, (key, size, item) in enumerate(found):
        heappush(heap, (-key, place, size, item))
        held += size
        while held - heap[0][2] >= enough:
            held -= heappop(heap)[2]
    return [(size, item) for _, _, size, item in sorted(heap, key=lambda drawn: drawn[:2], reverse=True)]
