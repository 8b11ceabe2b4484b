"""How groups are told apart: in colour, and in grey, as a printer or a colour-blind reader has it."""

from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from coolbits.figures import palette


def lightness(color: str) -> float:
    """CIE 1976 lightness of an sRGB colour, 0 to 100."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 216 / 24389 else luminance * 24389 / 27


@pytest.mark.parametrize("pair", list(combinations(("adamw", "adamc", "muon", "sgd"), 2)))
def test_optimizers_whose_lines_and_marks_are_alike_differ_in_grey(pair: tuple[str, str]) -> None:
    one, other = (lightness(palette.optimizer_color(kind, pair)) for kind in pair)
    assert abs(one - other) > 15


@pytest.mark.parametrize(
    "looks", [palette.SCHEDULES, {"trunk": palette.TRUNK, "decay": palette.DECAY, **palette.AVERAGES}]
)
def test_what_is_alike_in_grey_has_marks_of_its_own(looks: dict[str, palette.Look]) -> None:
    assert len({look.marker for look in looks.values()}) == len(looks)


def test_schedules_have_lines_of_their_own() -> None:
    assert len({look.line for look in palette.SCHEDULES.values()}) == len(palette.SCHEDULES)


def test_unknown_optimizers_have_colours_that_no_other_has() -> None:
    kinds = ["adamw", "lion", "lion", "shampoo", "muon"]
    assert len({palette.optimizer_color(kind, kinds) for kind in kinds}) == len(set(kinds))
