"""What a reader wants to know of a result, gathered from the manifests and records behind it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.artifacts.manifest import MANIFEST
from coolbits.provenance.lineage import Artifact, Lineage, declared
from coolbits.provenance.recipes import Contrast, Fields, contrast, flatten
from coolbits.provenance.trained import Trained, trained, trajectories

CAPTION = "caption.txt"
_ROWS = "rows"
_LIBRARIES = ("torch", "triton", "transformers", "tokenizers", "numpy", "scipy", "pandas", "pyarrow")
PACKAGES = (*_LIBRARIES, "matplotlib", "lm_eval")


@dataclass(frozen=True)
class Share:
    """What one kind has of the whole: artifacts, bytes of their files, seconds that they took."""

    artifacts: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """All that the page says; `hours` by device are of the device, and of one core where it is a CPU."""

    name: str
    fingerprint: str
    caption: str
    trained: dict[str, Trained]
    recipes: dict[str, Contrast]
    shares: dict[str, Share]
    hours: dict[str, float]
    commits: dict[str, int]
    versions: dict[str, list[str]]
    threads: list[str]
    started: tuple[str, str]
    commands: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values."""
        return asdict(self)


def explain(top: Artifact, lineage: Lineage) -> Explanation:
    """Gather what is known of the artifact `top`, whose lineage is given; what a lost record knew is left out."""
    made = [artifact for artifact in lineage if artifact.manifest]
    kinds, along = _by_kind(made), trajectories(lineage)
    recorded = [artifact.record for artifact in made if artifact.record]
    started = sorted(record.started for record in recorded) or [""]
    return Explanation(
        name=top.label,
        fingerprint=top.manifest.fingerprint if top.manifest else "",
        caption=_caption(top),
        trained=trained(lineage, along),
        recipes=_recipes(kinds, along, _runs(lineage)),
        shares={kind: _share(group) for kind, group in kinds.items()},
        hours=_hours(made),
        commits=_commits(made),
        versions=_versions(made),
        threads=sorted({record.environment.threads or "any" for record in recorded}),
        started=(started[0], started[-1]),
        commands=_commands(top),
    )


def _caption(top: Artifact) -> str:
    """Return what was written below a figure, or a sentence on why that is not known."""
    if top.manifest is None or CAPTION not in top.manifest.files:
        return ""
    try:
        return declared(top, CAPTION).decode(errors="replace").strip()
    except CoolbitsError as error:
        return str(error)


def _by_kind(artifacts: Iterable[Artifact]) -> dict[str, list[Artifact]]:
    kinds: dict[str, list[Artifact]] = defaultdict(list)
    for artifact in artifacts:
        kinds[artifact.kind].append(artifact)
    return dict(kinds)


def _share(group: list[Artifact]) -> Share:
    seconds = sum(artifact.record.seconds for artifact in group if artifact.record)
    return Share(len(group), sum(artifact.bytes for artifact in group), round(seconds, 3))


def _recipes(
    kinds: Mapping[str, list[Artifact]], along: Mapping[str, Fields], runs: Mapping[str, str]
) -> dict[str, Contrast]:
    """Return for each kind its recipes side by side: trajectories by the study's runs, others by equal recipes."""
    found = {}
    for kind, group in kinds.items():
        if kind == "checkpoint":
            found[kind] = contrast(_by_run(along, runs))
            continue
        equal: dict[str, list[Fields]] = defaultdict(list)
        for artifact in group:
            fields = flatten(artifact.manifest.recipe if artifact.manifest else {})
            fields.pop(_ROWS, None)
            equal[canonical_json(fields)].append(fields)
        found[kind] = contrast([(f"{len(alike):,} artifacts", alike[:1]) for alike in equal.values()])
    return found


def _by_run(recipes: Mapping[str, Fields], runs: Mapping[str, str]) -> list[tuple[str, list[Fields]]]:
    groups: dict[str, list[Fields]] = defaultdict(list)
    for name, fields in recipes.items():
        groups[runs.get(name, "in no table")].append(fields)
    return list(groups.items())


def _runs(lineage: Lineage) -> dict[str, str]:
    """Return the study's names for trajectories, of several the first: tables' rows have both.

    The rows of an average bear its name, so they count only for what has no row of its own.
    """
    tables = [table.manifest.recipe.get(_ROWS, []) for table in lineage.of_kind("table") if table.manifest]
    columns = [row["columns"] for rows in tables for row in rows]
    runs: dict[str, str] = {}
    for row in sorted(columns, key=lambda row: row.get("source") == "average"):
        if "trajectory" in row and "run" in row:
            runs.setdefault(row["trajectory"], row["run"])
    return runs


def _hours(made: Iterable[Artifact]) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for record in (artifact.record for artifact in made if artifact.record):
        environment, threads = record.environment, record.environment.threads or ""
        cores = int(threads) if environment.device == "cpu" and threads.isdigit() else 1
        seconds[environment.computer] += record.seconds * cores
    return {device: round(spent / 3600, 3) for device, spent in sorted(seconds.items())}


def _commits(made: Iterable[Artifact]) -> dict[str, int]:
    commits: dict[str, int] = defaultdict(int)
    for record in (artifact.record for artifact in made if artifact.record):
        git = record.environment.git
        commits["unknown" if git is None else git.commit + (" with changes" if git.dirty else "")] += 1
    return dict(commits)


def _versions(made: Iterable[Artifact]) -> dict[str, list[str]]:
    """Return the versions of what decides numbers and pictures; several where artifacts differ."""
    versions: dict[str, set[str]] = defaultdict(set)
    for record in (artifact.record for artifact in made if artifact.record):
        environment = record.environment
        versions["Python"].add(environment.python)
        versions["lock file"].add(environment.lock or "none")
        for name in PACKAGES:
            if name in environment.packages:
                versions[name].add(environment.packages[name])
    return {name: sorted(found) for name, found in versions.items()}


def _commands(top: Artifact) -> list[str]:
    """Return what to type to make the artifact again, in a clone of the project."""
    git = top.record.environment.git if top.record else None
    checkout = [f"git checkout {git.commit}"] if git and not git.dirty else []
    return [*checkout, f"snakemake --cores all results/{top.label}/{MANIFEST} --configfile STUDY.yaml"]
