"""One rule of the workflow, as Snakemake is told of it: its files, what makes it run again, and its resources."""

from dataclasses import dataclass
from pathlib import Path

from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST
from coolbits.study.load import rule_name

OWN = ("table", "figure", "claims")
"""Kinds of results named by the study: what a changed study asks for lies where the old one did."""

_MARGIN = 3  # the estimate is good to a factor of two
_LEAST_MINUTES = 10


@dataclass(frozen=True)
class Task:
    """One rule: its job, and what it takes in time and memory."""

    job: Job
    root: Path
    study: str
    code: str
    threads: int
    seconds: float
    megabytes: int
    gpus: int = 0
    longest_minutes: int | None = None
    outdated_by: tuple[str, ...] = ()  # files that say that the result is another's

    @property
    def name(self) -> str:
        """The rule's name: the job's, in letters that a rule name may have."""
        return rule_name(self.job.name)

    @property
    def input(self) -> list[str]:
        """Manifests of all parents that the job does not make itself, and what says that its result is outdated."""
        own = {node.name for node in self.job.nodes}
        refs = {
            (ref.kind, ref.name): ref
            for node in self.job.nodes
            for ref in node.parents.values()
            if not (ref.kind == self.job.kind and ref.name in own)
        }
        return [*(str(ref.directory(self.root) / MANIFEST) for ref in refs.values()), *self.outdated_by]

    @property
    def output(self) -> list[str]:
        """Manifests of all nodes of the job."""
        return [str(node.directory(self.root) / MANIFEST) for node in self.job.nodes]

    @property
    def recipe(self) -> Path:
        """The RECIPE file of the job. A path, not text: Snakemake compares no paths when it looks at params.

        A job may read it hours after it was written. So it says its study and what it makes: no other run, of another
        study or of this one after a change, writes there what makes something else.
        """
        made = digest_of([node.fingerprint for node in self.job.nodes])
        return self.root / "recipes" / self.study / f"{self.job.name}-{made[:8]}.json"

    @property
    def log(self) -> str:
        """The job's log file."""
        return str(self.root / "logs" / self.study / f"{self.job.name}.log")

    @property
    def identity(self) -> str:
        """What makes a study's own result run again when its recipe changes: it keeps its name, shared ones do not."""
        return self.job.nodes[0].fingerprint if self.job.kind in OWN else "in the name"

    def file(self, name: str) -> str:
        """Return the path of a file of the job's first artifact."""
        return str(self.job.nodes[0].directory(self.root) / name)

    @property
    def figure(self) -> str:
        """The figure that the job draws, which names its files."""
        return str(self.job.nodes[0].recipe["figure"])

    @property
    def caption(self) -> str:
        """Where the figure's caption will be; absolute, because the report looks beside the rules otherwise."""
        return str(Path(self.file("caption.rst")).resolve())

    @property
    def title(self) -> str:
        """What the study calls the job's first artifact."""
        return self.job.nodes[0].name.partition("/")[2]

    @property
    def page(self) -> Path:
        """The page of the lineage of the job's first artifact."""
        return self.root / "lineage" / f"{self.job.nodes[0].name}.html"

    @property
    def resources(self) -> dict[str, int]:
        """Memory in MB, minutes and, where the job computes on one, a GPU: for a cluster."""
        wanted = max(_LEAST_MINUTES, round(_MARGIN * self.seconds / 60))
        minutes = min(wanted, self.longest_minutes or wanted)
        return {"mem_mb": self.megabytes, "runtime": minutes} | ({"gpu": self.gpus} if self.gpus else {})

    @property
    def priority(self) -> int:
        """The longest jobs go first, so that the last ones to end are short."""
        return round(self.seconds)
