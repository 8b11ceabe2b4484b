"""The page of a result's lineage: its picture, whose marks lead to rows, runs, artifacts and files behind them."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from coolbits.artifacts.files import write_text
from coolbits.provenance.explain import CAPTION, Explanation, explain
from coolbits.provenance.lineage import Artifact, Key, Lineage, declared, reach, trace
from coolbits.provenance.pages.drawn import Drawn, read_drawn, tables_of
from coolbits.provenance.pages.facts import facts
from coolbits.provenance.pages.graph import kinds_graph
from coolbits.provenance.pages.html import Html, document, join, table, tag, values
from coolbits.provenance.trained import say_trained
from coolbits.study.units import si_bytes

SCRIPT, STYLE = "page.js", "page.css"
# A report holds its pages as data: URLs, of which browsers open none above 2 MiB: a third more than the page itself.
LARGEST = 1_500_000
_ROOM = 2.0  # points around a mark that belong to it


def write_lineages(root: Path, keys: Sequence[Key], out: Path) -> Iterator[Path]:
    """Write the page of each artifact in the results folder `root` to `NAME.html` in `out`; yield where.

    Raises:
        CoolbitsError: as `lineage_page` does.
    """
    every = trace(root, keys)
    for key in keys:
        top = every.artifacts[key]
        behind = Lineage(root, {artifact.key: artifact for artifact in every.behind(top)})
        path = out / f"{key[1]}.html"
        write_text(path, lineage_page(top, behind))
        yield path


def lineage_page(top: Artifact, lineage: Lineage) -> Html:
    """Return the page of an artifact, whose lineage is given: the same bytes for the same results.

    It tells of the artifact, its tables, and all that the rows drawn were made from; of a result without marks, of all
    behind it.

    Raises:
        CoolbitsError: if a file that it shows is not the one that its manifest declares.
    """
    drawn = read_drawn(top, lineage)
    told = _told(top, lineage, drawn)
    body = join(
        [
            tag("header", tag("h1", f"Lineage of {top.key[1]}"), _about(top)),
            tag(
                "main",
                tag("section", _picture(top, drawn), _story(top, lineage), class_="result"),
                tag("section", _unscripted(told, len(lineage)), id="panel", aria_live="polite", tabindex="-1"),
            ),
            values("facts", facts(lineage, top, told, drawn)),
        ]
    )
    return document(f"Lineage of {top.label}", body, resource(STYLE), resource(SCRIPT), top.digest or "")


def resource(name: str) -> str:
    """Return the text of a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _told(top: Artifact, lineage: Lineage, drawn: Drawn) -> list[Artifact]:
    if not drawn.marks:
        return list(lineage)
    behind = reach(drawn.sources, lambda key: lineage.artifacts[key].parents.values() if key[0] != "table" else ())
    shown = behind | {top.key} | {parent.key for parent in tables_of(top, lineage).values()}
    return [artifact for artifact in lineage if artifact.key in shown]


def _about(top: Artifact) -> Html:
    started = f", made {top.record.started[:16].replace('T', ' ')} UTC" if top.record else ""
    said = f"{top.label}{started}. All on this page comes from manifests and records; "
    return tag("p", said, tag("code", "coolbits audit"), " checks them.", class_="small")


def _picture(top: Artifact, drawn: Drawn) -> Html | None:
    """Return the figure with a link over each of its marks."""
    names = [name for name in (top.manifest.files if top.manifest else ()) if Path(name).suffix in (".svg", ".png")]
    if not names:
        return None
    name = max(names)  # the SVG, where there are both
    form = "svg+xml" if name.endswith(".svg") else "png"
    source = f"data:image/{form};base64,{b64encode(declared(top, name)).decode()}"
    caption = declared(top, CAPTION).decode() if top.manifest and CAPTION in top.manifest.files else ""
    marks = tag(
        "svg",
        *(_spot(number, drawn) for number in range(len(drawn.marks))),
        id="marks",
        viewBox=f"0 0 {drawn.width:g} {drawn.height:g}",
        role="group",
        aria_label=f"{len(drawn.marks)} marks; arrow keys go from one to the next",
    )
    frame = tag("div", tag("img", src=source, alt=caption.strip()), marks if drawn.marks else None, class_="frame")
    hint = "Click a mark to see its rows, runs and files." if drawn.marks else None
    return tag("figure", frame, tag("figcaption", caption.strip(), class_="small"), tag("p", hint, class_="hint"))


def _spot(number: int, drawn: Drawn) -> Html:
    mark = drawn.marks[number]
    circle = tag("circle", cx=f"{mark.x:g}", cy=f"{mark.y:g}", r=f"{mark.size / 2 + _ROOM:g}")
    return tag("a", circle, href=f"#mark/{number}", tabindex="-1" if number else None)


def _story(top: Artifact, lineage: Lineage) -> Html:
    """Return what is known of the whole lineage: how many artifacts of which kinds, trained how long, made by what."""
    told = explain(top, lineage)
    said = [
        ("Trained", say_trained(told.trained) or "nothing"),
        ("Time", "; ".join(f"{hours:.2f} h on {device}" for device, hours in told.hours.items()) or "not recorded"),
        ("Commit", ", ".join(f"{commit} ({count:,})" for commit, count in told.commits.items()) or "not recorded"),
    ]
    summary = tag("dl", *(part for name, text in said for part in (tag("dt", name), tag("dd", text))))
    again = tag("pre", "\n".join(told.commands))
    return join(
        [
            tag("h2", "What it was made from"),
            kinds_graph(lineage),
            summary,
            tag("details", tag("summary", "To make it again"), again),
            tag("details", tag("summary", "Artifacts, bytes and time by kind"), _shares(told)),
            tag("details", tag("summary", "Versions"), table(("Package", "Version"), _versions(told))),
        ]
    )


def _shares(told: Explanation) -> Html:
    rows = (
        (kind, f"{share.artifacts:,}", si_bytes(share.bytes), f"{share.seconds:,.1f} s")
        for kind, share in told.shares.items()
    )
    return table(("Kind", "Artifacts", "Bytes", "Time"), rows)


def _versions(told: Explanation) -> list[tuple[str, str]]:
    return [(name, ", ".join(found)) for name, found in told.versions.items()]


def _unscripted(told: Sequence[Artifact], count: int) -> Html:
    """Return what a browser without scripts shows in place of what is clicked: all artifacts told of."""
    heading = f"{len(told):,} of {count:,} artifacts, behind what is drawn"
    labels = ((artifact.label, si_bytes(artifact.bytes)) for artifact in told)
    names = (tag("li", f"{label}, {size}B", id=f"artifact/{label}") for label, size in labels)
    return tag("noscript", tag("h2", heading), tag("ul", *names, class_="small"))
