"""Facts for a page, as JSON: artifacts with files, recipe and record, rows and marks. What many share is said once."""

from collections.abc import Iterable, Mapping
from typing import Any

from coolbits.artifacts.hashing import canonical_json
from coolbits.provenance.explain import PACKAGES
from coolbits.provenance.lineage import Artifact, Key, Lineage
from coolbits.provenance.pages.drawn import Drawn, Row
from coolbits.provenance.records import Record
from coolbits.stages import STAGES


class Shared:
    """Values that many have in common, each kept once and named by its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Return the place of a value, which becomes the last one if it is new."""
        text = canonical_json(value)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(value)
        return self._places[text]


def facts(lineage: Lineage, top: Artifact, told: Iterable[Artifact], drawn: Drawn) -> dict[str, Any]:
    """Return what the script of a page knows: of the artifacts `told`, and of what `top` draws.

    Artifacts are named by their places in the list; parents that are not in it are left out.
    """
    artifacts = list(told)
    places = {artifact.key: place for place, artifact in enumerate(artifacts)}
    recipes, circumstances = Shared(), Shared()
    return {
        "kinds": list(STAGES),
        "top": places[top.key],
        "artifacts": [_artifact(artifact, places, recipes, circumstances) for artifact in artifacts],
        "recipes": recipes.values,
        "circumstances": circumstances.values,
        "tables": {
            name: {"artifact": places[top.parents[name]], **_rows(rows, places)} for name, rows in drawn.rows.items()
        },
        "marks": [list(mark.rows) for mark in drawn.marks],
    }


def _rows(rows: Mapping[int, Row], places: dict[Key, int]) -> dict[str, Any]:
    """Return the columns once, and each row's values, null where it has none, with the places of what it measured."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row.values))
    found = {
        number: [[row.values.get(name) for name in columns], _known(row.sources, places)]
        for number, row in rows.items()
    }
    return {"columns": columns, "rows": found}


def _known(keys: Iterable[Key], places: dict[Key, int]) -> list[int]:
    return [places[key] for key in dict.fromkeys(keys) if key in places]


def _artifact(artifact: Artifact, places: dict[Key, int], recipes: Shared, circumstances: Shared) -> dict[str, Any]:
    kind, name = artifact.key
    found: dict[str, Any] = {"kind": kind, "name": name, "bytes": artifact.bytes}
    if artifact.manifest is not None:
        manifest = artifact.manifest
        # The rows of a table are shown where it is drawn.
        recipe = {key: value for key, value in manifest.recipe.items() if key != "rows"}
        found |= {
            "fingerprint": manifest.fingerprint,
            "digest": artifact.digest,
            "parents": {role: places[key] for role, key in artifact.parents.items() if key in places},
            "files": [[file, entry["bytes"], entry["sha256"]] for file, entry in manifest.files.items()],
            "recipe": recipes.place(recipe),
            "summary": manifest.summary,
        }
    if artifact.faults:
        found["faults"] = [fault.said for fault in artifact.faults]
    if artifact.record is not None:
        made = {"started": artifact.record.started, "seconds": artifact.record.seconds}
        found |= made | {"circumstances": circumstances.place(_circumstances(artifact.record))}
    return found


def _circumstances(record: Record) -> dict[str, Any]:
    """Return what says by which code, on what and with which versions, under the words that a reader sees."""
    made, code = record.environment, record.code
    dirty = " with changes" if made.git and made.git.dirty else ""
    packages = {name: made.packages[name] for name in PACKAGES if name in made.packages}
    return {
        "commit": made.git.commit + dirty if made.git else "unknown",
        "code": f"{code.digest} ({len(code.modules)} modules of {code.entry})",
        "device": made.computer,
        "threads": made.threads or "any",
        "versions": {"Python": made.python, **packages, "lock file": made.lock or "none"},
    }
