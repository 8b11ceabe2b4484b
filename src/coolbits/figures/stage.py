"""The stage of figures: from tables to `NAME.svg`, `NAME.png`, `marks.json`, `caption.txt` and `caption.rst`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from coolbits.artifacts.each import make_each
from coolbits.artifacts.files import write_text
from coolbits.artifacts.hashing import canonical_json, digest_of
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.figures.marks import MARKS, find_marks, number_rows
from coolbits.figures.registry import plot
from coolbits.figures.style import save, theme
from coolbits.study.recipes.results import DOCUMENTS, TABLE, Figure

CAPTION, REPORT_CAPTION = "caption.txt", "caption.rst"
_LINK = '\n\n`Runs and files behind each mark <{}>`__; here, switch from "figure" to "lineage".'
_MARKUP = str.maketrans({letter: f"\\{letter}" for letter in "\\*`|_{}%#"})


def run(job: Job, store: Store) -> int:
    """Draw the figures of a job; return how many were drawn."""
    return make_each(job, "figure", lambda node: _make(node, store))


def _make(node: Node, store: Store) -> bool:
    tables = {role: ref.directory(store.root) / TABLE for role, ref in node.parents.items()}
    lineage = lineage_digest(node, store)
    page = f"lineage/{node.name}.html"
    return store.ensure(node, lambda out: build_figure(Figure.read(node.recipe), tables, lineage, out, page))


def lineage_digest(node: Node, store: Store) -> str:
    """Return the digest that the figure's files carry: of its fingerprint and its parents' manifest digests."""
    parents = {role: store.manifest(node, role).digest for role in node.parents}
    return digest_of({"fingerprint": node.fingerprint, "parents": parents})


def build_figure(
    recipe: Figure, tables: Mapping[str, Path], lineage: str, out: Path, page: str | None = None
) -> dict[str, Any]:
    """Draw a figure from the tables, by role, into `out`; return the summary.

    A figure that asks for them gets the documents beside the table of losses as a table `documents`. `page` is where
    the page of its lineage will be, beside the report.

    Raises:
        CoolbitsError: if there is no such figure or option, or the study lacks rows that it needs.
    """
    figure = plot(recipe.figure)
    frames = {role: pd.read_parquet(path) for role, path in tables.items()}
    documents = {"documents": pd.read_parquet(tables["loss"].with_name(DOCUMENTS))} if figure.documents else {}
    numbered = number_rows(frames)
    with theme():
        drawn = figure.draw(numbered | documents, recipe.options)
        save(drawn, out, recipe.figure, lineage)
        write_text(out / MARKS, canonical_json(find_marks(drawn, frames)) + "\n")
    caption = figure.caption(frames | documents, recipe.options, recipe.scale)
    write_text(out / CAPTION, caption + "\n")
    write_text(out / REPORT_CAPTION, escaped(caption) + (_LINK.format(page) if page else "") + "\n")
    return {"lineage": lineage, "figure": recipe.figure}


def escaped(text: str) -> str:
    """Return text as reStructuredText, and a template of Snakemake's in it, that reads as just this text."""
    return text.translate(_MARKUP)
