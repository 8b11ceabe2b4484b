"""What happened, in a crate's metadata: what made which artifact from what and when, each job, and the whole study."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from rocrate.rocrate import ROCrate

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.provenance.crate.files import outcome
from coolbits.provenance.crate.graph import add, folder_of, quoted, refs, run_of, step, tool, value_of
from coolbits.provenance.crate.software import ENGINE, commit
from coolbits.provenance.crate.tools import fields
from coolbits.provenance.lineage import Artifact, Key
from coolbits.provenance.records import Record

STUDY_RUN = "#run"
_ENGINE_RUN = "#engine-run"
_COMPLETED = "http://schema.org/CompletedActionStatus"


def span(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Return when the first of these artifacts was begun and the last was done, as properties of an action."""
    times = [_times(artifact) for artifact in artifacts]
    begun, done = min(begun for begun, _ in times), max(done for _, done in times)
    return {"startTime": begun.isoformat(timespec="milliseconds"), "endTime": done.isoformat(timespec="milliseconds")}


def add_run(crate: ROCrate, artifact: Artifact) -> str:
    """Add the action that made an artifact. That it completed is true of a diverged one too: its outcome says more."""
    record = artifact.record
    values = [value_of(artifact.kind, name, value) for name, value in fields(artifact).items()]
    threads = record.environment.threads if record else None
    return add(
        *(crate, run_of(artifact.label), "CreateAction"),
        name=f"make {artifact.label}",
        description=f"{_circumstances(artifact.kind, record)} Outcome: {outcome(artifact)}." if record else None,
        instrument=refs([tool(artifact.kind)]),
        object=refs([*(folder_of("/".join(key)) for key in artifact.parents.values()), *values]),
        result=refs([folder_of(artifact.label)]),
        environment=refs([_add_variable(crate, "OMP_NUM_THREADS", threads)]) if threads else None,
        actionStatus=_COMPLETED,
        **span([artifact]),
    )


def add_job(crate: ROCrate, job: Job, artifacts: Mapping[Key, Artifact]) -> str:
    """Add the step's execution by the engine that covered these nodes' runs."""
    made = [artifacts[node.kind, node.name] for node in job.nodes]
    return add(
        *(crate, f"#job/{quoted(job.name)}", "ControlAction"),
        name=f"job {job.name}",
        instrument=refs([step(job.kind)]),
        object=refs(run_of(artifact.label) for artifact in made),
        actionStatus=_COMPLETED,
        **span(made),
    )


def add_study_run(
    crate: ROCrate, name: str, artifacts: Sequence[Artifact], jobs: Sequence[str], study: str, results: Sequence[str]
) -> list[str]:
    """Add the run of the whole workflow, from the study file to its results, and of the engine with its jobs."""
    times = span(artifacts)
    describes = {"name": f"study {name}", "description": f"all {len(artifacts):,} artifacts of the study {name}"}
    links = {"instrument": refs([crate.mainEntity.id]), "object": refs([study]), "result": refs(results)}
    run = add(crate, STUDY_RUN, "CreateAction", **describes, **links, actionStatus=_COMPLETED, **times)
    links = {"instrument": refs([ENGINE]), "object": refs(jobs), "result": refs([run])}
    named = {"name": f"Snakemake of study {name}"}
    return [run, add(crate, _ENGINE_RUN, "OrganizeAction", **named, **links, actionStatus=_COMPLETED, **times)]


def _times(artifact: Artifact) -> tuple[datetime, datetime]:
    started = artifact.record.started if artifact.record else ""
    try:
        begun = datetime.fromisoformat(started).astimezone(UTC)
        return begun, begun + timedelta(seconds=artifact.record.seconds if artifact.record else 0.0)
    except (ValueError, OverflowError):
        raise CoolbitsError(f"{artifact.directory}: its record says {started!r}, which is no time") from None


def _circumstances(kind: str, record: Record) -> str:
    environment = record.environment
    return (
        f"coolbits {kind}, {record.seconds:,.1f} s on {environment.computer}, Python {environment.python}; "
        f"commit {commit(environment)}; code slice {record.code.digest}."
    )


def _add_variable(crate: ROCrate, name: str, value: str) -> str:
    return add(crate, f"#environment-variable/{name}/{quoted(value)}", "PropertyValue", name=name, value=value)
