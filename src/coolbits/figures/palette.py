"""How groups of rows are told apart, the same in every figure: colours, marks and lines."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import seaborn as sns
from matplotlib.colors import to_rgb

# Okabe and Ito's palette, told apart by colour-blind readers; one colour a thing, in every figure. In grey the first
# four are much alike, of lightness 46 to 61: things in these colours have marks or lines of their own.
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")

Line = Literal["-", "--", ":", "-.", ""] | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """How one group of rows is drawn."""

    label: str
    color: Any
    marker: str = "o"
    line: Line = "-"


TRUNK = Look("constant rate", _OKABE_ITO[0])
DECAY = Look("cooldown", _OKABE_ITO[1], "D")
AVERAGES = {
    "lawa": Look("LAWA", _OKABE_ITO[2], "s"),
    "soup": Look("soup", _OKABE_ITO[3], "P"),
    "ema": Look("EMA", _OKABE_ITO[4], "^"),
    "merge": Look("merge", _OKABE_ITO[5], "v"),
}
SCHEDULES = {
    "wsd": Look("WSD", _OKABE_ITO[1], "D"),
    "cosine": Look("cosine", _OKABE_ITO[2], "o", "--"),
    "linear": Look("linear", _OKABE_ITO[3], "s", ":"),
}
PLACES = {
    "matrices": Look("matrices of the blocks", _OKABE_ITO[0]),
    "tables": Look("embeddings and head", _OKABE_ITO[1]),
    "vectors": Look("norms and biases", _OKABE_ITO[2]),
}
SOURCES = {
    "gaussian": Look("Gaussian", _OKABE_ITO[0]),
    "heavy-tailed": Look("heavy-tailed, t(3)", _OKABE_ITO[1], "D"),
    "ill-conditioned": Look("rank 16 and noise", _OKABE_ITO[2], "s"),
    "runs": Look("training runs", _OKABE_ITO[6], "."),
}
_STATES: dict[str, tuple[Line, str]] = {
    "32": ("-", "o"),
    "8D": ("--", "s"),
    "8L": (":", "^"),
    "8L+8D": ("-.", "D"),
    "8L+8L": ((0, (5, 1, 1, 1, 1, 1)), "v"),
}
_OTHER_STATES: tuple[Line, str] = ((0, (8, 2)), "P")
_CHANGES = re.compile(r"-(b|min)\d+")
# Lines and marks say how states are stored, so these are told apart by colour alone: lightness 31, 54, 70, 0.
_OPTIMIZERS = {"adamw": "#004C77", "muon": _OKABE_ITO[1], "sgd": _OKABE_ITO[5], "adamc": _OKABE_ITO[6]}
_OTHER_OPTIMIZERS = (_OKABE_ITO[2], _OKABE_ITO[4], _OKABE_ITO[3], _OKABE_ITO[7])
GREY = "0.55"
_PALE, _DARKER = 0.4, 0.7  # of a colour's distance from white, from black
_OTHER_MARKS = "XpP*h<>"
_SWEPT_MARKS = "osD^vP<>"
_NTH_MARKS = "osD^v<>p"


def decay_look(label: str, place: int) -> Look:
    """Return the look of one of several kinds of cooldowns."""
    return Look(label, _OKABE_ITO[(1, 3, 4, 5)[place % 4]], "DsPv"[place % 4])


def nth_look(label: str, place: int) -> Look:
    """Return the look of one of several things without a colour of their own, as tasks are."""
    again = place // len(_OKABE_ITO)  # the same colour has another mark
    return Look(label, _OKABE_ITO[place % len(_OKABE_ITO)], _NTH_MARKS[(place + again) % len(_NTH_MARKS)])


def optimizer_color(kind: str, others: Sequence[str]) -> str:
    """Return the colour of an optimizer; one unknown here takes the next free one among `others`."""
    fresh = [name for name in dict.fromkeys(others) if name not in _OPTIMIZERS]
    return _OPTIMIZERS.get(kind) or _OTHER_OPTIMIZERS[fresh.index(kind) % len(_OTHER_OPTIMIZERS)]


def variant_look(label: str, color: str, states: str) -> Look:
    """Return the look of an optimizer whose states are stored so: its colour, and a line and a mark for the states.

    32 bits are solid, dynamic codes dashed, linear ones dotted, mixtures dashed and dotted. Other blocks or another
    smallest tensor than the default (`8L-b256`, `8D-min0`) make the colour pale.
    """
    usual = _CHANGES.sub("", states)
    line, marker = _STATES.get(usual, _OTHER_STATES)
    look = Look(label, color, marker, line)
    return look if usual == states else pale(look)


def pale(look: Look) -> Look:
    """Return the same look in a paler colour."""
    return replace(look, color=tuple(1 - _PALE * (1 - part) for part in to_rgb(look.color)))


def told_apart(looks: Sequence[Look]) -> list[Look]:
    """Return the looks; of those alike but for the label each but the first is darker and has another mark."""
    seen: Counter[tuple[Any, ...]] = Counter()
    found = []
    for look in looks:
        alike = (to_rgb(look.color), look.marker, look.line)
        again, seen[alike] = seen[alike], seen[alike] + 1
        if again:
            darker = tuple(part * _DARKER**again for part in to_rgb(look.color))
            look = replace(look, color=darker, marker=_OTHER_MARKS[(again - 1) % len(_OTHER_MARKS)])
        found.append(look)
    return found


def swept(labels: Sequence[str]) -> list[Look]:
    """Return the looks of values of one knob, in order: light to dark, and marks by which they differ in grey, too."""
    marked = zip(labels, shades(len(labels)), _SWEPT_MARKS * len(labels), strict=False)
    return [Look(label, color, marker) for label, color, marker in marked]


def shades(count: int) -> list[Any]:
    """Return `count` colours in order, light to dark, each visible on white: for a peak rate or a budget."""
    return list(sns.color_palette("crest", count)) if count > 1 else [_OKABE_ITO[0]]
