"""The kinds behind a result as a layered graph: a box a kind, with its count, and arrows to what was made of it."""

from collections import Counter
from typing import Any

from coolbits.provenance.lineage import Lineage
from coolbits.provenance.pages.html import Html, tag

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _EDGE = 96, 34, 128, 46, 6


def kinds_graph(lineage: Lineage) -> Html:
    """Return the graph as SVG, each box a link to `#kind/KIND`: what was made from nothing else stands at the left."""
    counts = Counter(artifact.kind for artifact in lineage)
    arrows = {(parent[0], artifact.kind) for artifact in lineage for parent in artifact.parents.values()}
    arrows = {(source, target) for source, target in arrows if source != target}
    layers = _layers(list(counts), arrows)
    columns: dict[int, list[str]] = {}
    for kind in counts:
        columns.setdefault(layers[kind], []).append(kind)
    tallest = max(map(len, columns.values()), default=0)
    places = {
        kind: (_EDGE + layer * _ACROSS, _EDGE + (tallest - len(kinds)) * _DOWN / 2 + row * _DOWN)
        for layer, kinds in columns.items()
        for row, kind in enumerate(kinds)
    }
    width = 2 * _EDGE + _WIDTH + _ACROSS * max(columns, default=0)
    height = 2 * _EDGE + _HEIGHT + _DOWN * (tallest - 1)
    lines = (_arrow(places[source], places[target]) for source, target in sorted(arrows))
    boxes = (_box(kind, counts[kind], *places[kind]) for kind in counts)
    named = "kinds of artifacts, from sources to result"
    size: dict[str, Any] = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    return tag("svg", *lines, *boxes, class_="kinds", role="group", aria_label=named, **size)


def _layers(kinds: list[str], arrows: set[tuple[str, str]]) -> dict[str, int]:
    """Return for each kind the length of the longest way to it; of kinds in a circle, as far as it was followed."""
    layers = dict.fromkeys(kinds, 0)
    for _ in kinds:
        for source, target in arrows:
            layers[target] = min(max(layers[target], layers[source] + 1), len(kinds))
    return layers


def _arrow(source: tuple[float, float], target: tuple[float, float]) -> Html:
    x, y, to, down = source[0] + _WIDTH, source[1] + _HEIGHT / 2, target[0], target[1] + _HEIGHT / 2
    middle = (x + to) / 2
    return tag("path", d=f"M{x:g} {y:g} C{middle:g} {y:g} {middle:g} {down:g} {to:g} {down:g}")


def _box(kind: str, count: int, x: float, y: float) -> Html:
    middle = x + _WIDTH / 2
    label = f"{count:,} {kind}"
    return tag(
        "a",
        tag("rect", x=f"{x:g}", y=f"{y:g}", width=_WIDTH, height=_HEIGHT, rx=4),
        tag("text", kind, x=f"{middle:g}", y=f"{y + 14:g}"),
        tag("text", f"{count:,}", x=f"{middle:g}", y=f"{y + 28:g}", class_="count"),
        href=f"#kind/{kind}",
        aria_label=label,
    )
