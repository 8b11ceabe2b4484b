"""What the rules ask of a plan: one task a rule, with paths, code slices and resources."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST, RECORD, read_manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store, demand_folder
from coolbits.stages import STAGES
from coolbits.study.board import Board
from coolbits.study.durations import asks_for_gpu, job_seconds
from coolbits.study.footprint import job_megabytes
from coolbits.study.plan import KINDS, Plan, make_plan
from coolbits.study.standing import Key, key_of, standing, stands, wanted_files
from coolbits.study.task import OWN, Task
from coolbits.study.times import bring_back, put_behind, put_in_order, put_pages_in_order, says


@dataclass(frozen=True)
class Workflow:
    """A plan as the rules see it; `root` is the results folder, `source` the study file."""

    plan: Plan
    root: Path
    source: Path = Path("config.yaml")

    @classmethod
    def read(cls, study: str | Path, root: str | Path = "results") -> "Workflow":
        """Resolve the study file."""
        return cls(make_plan(Path(study)), Path(root), Path(study))

    @cached_property
    def _threads(self) -> dict[str, int]:
        threads = self.plan.study.threads
        prepared = ("corpus", "pretrained", "tokenizer", "shards", "calibration", "images", "conversations")
        data = dict.fromkeys(prepared, threads.data)
        measuring = dict.fromkeys(("average", "quantized", "evaluation", "analysis"), threads.measuring)
        training = dict.fromkeys(("checkpoint", "classifier", "finetuned"), threads.training)
        return {**data, **measuring, **training}

    @cached_property
    def _stores(self) -> dict[str, Store]:
        """The results folder as each stage sees it: its code is read once for all of its jobs."""
        return {kind: Store(self.root, code_slice(STAGES[kind])) for kind in KINDS}

    def tasks(self, kind: str) -> Iterator[Task]:
        """Yield the tasks of one kind; what a job has made already takes it no time."""
        code, gpus = self._stores[kind].code.digest[:16], int(asks_for_gpu(kind, self.plan))
        for job in self.plan.jobs(kind):
            yield Task(
                job,
                self.root,
                self.plan.study.study,
                code=code,
                threads=self._threads.get(kind, 1),
                seconds=job_seconds(job, self.plan, self._made(job)),
                megabytes=job_megabytes(job, self.plan),
                gpus=gpus,
                longest_minutes=self.plan.study.execution.longest_minutes,
                outdated_by=(str(job.nodes[0].directory(self.root) / RECORD),)
                if job.nodes[0] in self._outdated
                else (),
            )

    @cached_property
    def _outdated(self) -> list[Node]:
        """The study's own results that are there, but of another recipe.

        The workflow engine knows recipes only where it saw results made: of those that were copied here it sees no more
        than names and times. So it is told by a time: that of the manifest is put before that of the record.
        """
        own = [node for kind in OWN for node in self.plan.of_kind(kind)]
        there = [
            node for node in own if all((node.directory(self.root) / file).is_file() for file in (MANIFEST, RECORD))
        ]
        return [node for node in there if not _is_of(node, self.root)]

    @cached_property
    def settings_outdated_by(self) -> list[str]:
        """The study file, if the page of settings is there, but of another study."""
        there = self.settings.is_file()
        return [str(self.source)] if there and not says(self.settings, self.identity) else []

    def _made(self, job: Job) -> set[str]:
        """Return the names of a job's artifacts that are there, none if all are: then it runs to make them again.

        Whether they are current would cost a look into thousands of files at each start.
        """
        made = {node.name for node in job.nodes if (node.directory(self.root) / MANIFEST).is_file()}
        return made if len(made) < len(job.nodes) else set()

    def targets(self) -> list[str]:
        """Return the files that `all` asks for: manifests of what no other node needs, and what people look at."""
        made = [str(node.directory(self.root) / file) for node in self.plan.targets() for file in wanted_files(node)]
        return [*made, *(str(task.page) for task in self.tasks("figure")), str(self.settings)]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of artifacts, of which a study may want none."""
        return KINDS

    def manifests(self, kind: str) -> list[str]:
        """Return the manifests of one kind, by which all of it is asked for."""
        return [str(node.directory(self.root) / MANIFEST) for node in self.plan.of_kind(kind)]

    def log(self, page: str) -> Path:
        """Return the log file of the rule that makes a kind of page."""
        return self.root / "logs" / self.plan.study.study / f"{page}.log"

    @property
    def settings(self) -> Path:
        """The page of the study's settings."""
        return self.root / "settings" / f"{self.plan.study.study}.html"

    @property
    def identity(self) -> str:
        """What makes the page of settings again."""
        return digest_of(self.plan.study.identity())

    def page_code(self, module: str) -> str:
        """Return the digest of the code that makes a kind of page."""
        return code_slice(f"coolbits.provenance.pages.{module}").digest[:16]

    def settle(self) -> None:
        """Put the times of what is there in order, so that only contents decide what is made again.

        Raises:
            CoolbitsError: if the results folder cannot be one.
        """
        demand_folder(self.root)
        jobs = [job for kind in KINDS for job in self.plan.jobs(kind)]
        bring_back(jobs, self.root)
        for job in jobs:
            put_in_order(job, self._stores[job.kind])
        for folder in (node.directory(self.root) for node in self._outdated):
            put_behind(folder / MANIFEST, folder / RECORD)
        if self.settings_outdated_by:
            put_behind(self.settings, self.source)
        put_pages_in_order({task.page: Path(task.output[0]).parent for task in self.tasks("figure")})

    @property
    def board(self) -> Board:
        """Where the run's progress is kept."""
        return Board(self.root / "work" / "boards" / f"{self.plan.study.study}.json")

    def start(self) -> None:
        """Write the RECIPE files and the board: the first thing a run of the workflow does."""
        tasks = [task for kind in KINDS for task in self.tasks(kind)]
        for task in tasks:
            write_json(task.recipe, task.job.to_json())
        self.board.post(list(self._waiting(tasks)), self.root)

    def _waiting(self, tasks: Iterable[Task]) -> Iterator[tuple[Job, float]]:
        """Yield the jobs to do, with their seconds: those that make what does not stand, and what hangs on them."""
        kept, changing = standing(self.plan, self.root), set[Key]()
        for task in tasks:
            nodes = task.job.nodes
            parents = {key_of(ref) for node in nodes for ref in node.parents.values()}
            if parents & changing or not all(stands(node, kept) for node in nodes):
                changing.update(map(key_of, nodes))
                yield task.job, task.seconds


def _is_of(node: Node, root: Path) -> bool:
    try:
        return read_manifest(node.directory(root)).fingerprint == node.fingerprint
    except CoolbitsError:
        return False


def chosen_study(files: Sequence[Path], keys: Iterable[str]) -> Path:
    """Return the study file that Snakemake was given by `--configfile`, or config.yaml.

    Args:
        files: all that `--configfile` names
        keys: what `--config` would change

    Raises:
        CoolbitsError: if there are several files, or any keys: a study is one file, which says all that is wanted.
    """
    if named := ", ".join(keys):
        raise CoolbitsError(
            f"--config: a study takes no keys from the command line ({named}); write them into the study file, or into "
            "a copy of it that --configfile names"
        )
    if len(files) > 1:
        names = ", ".join(map(str, files))
        raise CoolbitsError(f"--configfile: {names}: a study is one file; call Snakemake once for each")
    return files[0] if files else Path("config.yaml")
