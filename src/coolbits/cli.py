"""The command line: parses, calls a stage, prints errors that a person can act on."""

import argparse
import getpass
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from coolbits.arguments import Parser, add_verb, at_least, hearing_termination, interrupted, reason, refuse, refuse_disk
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.refusals import disk_refusal
from coolbits.commands import add_commands
from coolbits.commands_ptq import add_ptq_commands
from coolbits.stages import STAGES

_WRITTEN = ("out", "log", "board")
_HINT = (
    "To make a study, call snakemake, which calls the commands from corpus to claims. README.md says which command is "
    "for what, and docs/ explains each."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its status, 0 if it has none, or 2 after one sentence on what is wrong with the input."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the locale has no letters for
    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace], int | None] = options.command
        with hearing_termination():
            status = command(options) or 0
        print(end="", flush=True)  # what waits in memory may yet be refused
        return status
    except CoolbitsError as error:
        return refuse(str(error))
    except KeyboardInterrupt as error:
        _give_up_output()
        return interrupted(error)
    except MemoryError as error:
        return refuse(f"not enough memory ({error or 'no more is to be had'}); what is finished stays")
    except BrokenPipeError:
        return 0
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        found, expected = ("folder", "file") if isinstance(error, IsADirectoryError) else ("file", "folder")
        place = Path(str(error.filename2 or error.filename))
        return refuse(f"{_asked_for(place, options)}{place}: a {found} is where a {expected} should be")
    except Exception as error:
        if (refusal := disk_refusal(error)) is None:
            raise
        return refuse_disk(refusal)
    finally:
        _give_up_output()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="coolbits", description=__import__("coolbits").__doc__, epilog=_HINT)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = add_verb(verbs, "plan", "show what a study makes, what exists, and what it costs")
    plan.add_argument("study", type=Path, metavar="STUDY", help="the study file")
    plan.add_argument("--results", type=Path, default=Path("results"), help="the results folder (default: results)")
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plan.set_defaults(command=_plan)
    schema = add_verb(verbs, "schema", "print the JSON schema of the study file")
    schema.set_defaults(command=_schema)
    accept = add_verb(verbs, "accept", "keep artifacts that other code made, and record why")
    accept.add_argument("artifacts", type=Path, nargs="+", help="artifact folders, for example results/checkpoint/*/*")
    accept.add_argument("--why", type=reason, required=True, help="the reason, kept beside each artifact")
    accept.set_defaults(command=_accept)
    add_commands(verbs)
    add_ptq_commands(verbs)
    for kind, module in STAGES.items():
        stage = add_verb(verbs, kind, f"make the {kind} artifacts of a recipe file")
        stage.add_argument(
            "recipe", type=Path, help="RECIPE: the job's JSON file; snakemake writes results/recipes/STUDY/*.json"
        )
        stage.add_argument("out", type=Path, help="OUT: the results folder")
        stage.add_argument("--threads", type=at_least(1), default=1, help="CPU threads (default: 1)")
        stage.add_argument("--log", type=Path, help="file that gets the details")
        stage.add_argument("--board", type=Path, help="file with the jobs of this run, for the estimate of time left")
        stage.set_defaults(command=_stage, kind=kind, module=module)
    return parser


def _stage(options: argparse.Namespace) -> None:
    # OpenMP reads this once, when torch is first imported, which is why stages are imported only afterwards.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    from pydantic import ValidationError

    from coolbits.artifacts.code import code_slice
    from coolbits.artifacts.environment import git_state
    from coolbits.artifacts.job import Job
    from coolbits.artifacts.store import Store, demand_folder
    from coolbits.study.board import Board
    from coolbits.study.mistakes import sentence

    job = Job.read(options.recipe)
    if job.kind != options.kind:
        raise CoolbitsError(f"{options.recipe}: a recipe of kind {job.kind!r}, but the command is {options.kind!r}")
    demand_folder(options.out)
    _log_to(options.log)
    git_state()  # by the time that a result is stored, another commit may be checked out
    try:
        made = importlib.import_module(options.module).run(job, Store(options.out, code_slice(options.module)))
    except CoolbitsError as error:
        # A stage knows its node and no more; many jobs print into one terminal.
        raise CoolbitsError(f"{options.recipe}: {error}") from error
    except ValidationError as error:
        raise CoolbitsError(f"{options.recipe}: not a recipe of this version: {sentence(error, None)}") from None
    print(f"{job.name}: {made} made, {len(job.nodes) - made} kept", flush=True)
    if options.board is not None and (line := Board(options.board).line(job.name)):
        print(line, flush=True)


def _give_up_output() -> None:
    """Throw away what a closed pipe or a full disk refused of the output: Python would try, and complain, once more."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _asked_for(place: Path, options: argparse.Namespace) -> str:
    """Return the option that asked for something to be written at a place or below, as it was given."""
    for name in _WRITTEN:
        path = getattr(options, name, None)
        if path == place:
            return f"--{name} "
        if path is not None and place in path.parents:
            return f"--{name} {path}: "
    return ""


def _log_to(path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        form = "%(asctime)s %(name)s %(message)s"
        logging.basicConfig(filename=path, encoding="utf-8", level=logging.INFO, format=form)
        logging.captureWarnings(True)


def _plan(options: argparse.Namespace) -> None:
    from coolbits.artifacts.store import demand_folder
    from coolbits.study.cost import plan_report
    from coolbits.study.plan import make_plan
    from coolbits.study.show import print_plan

    demand_folder(options.results)
    plan = make_plan(options.study)
    if options.json:
        print(json.dumps(plan_report(plan, options.results), indent=1))
    else:
        print_plan(plan, options.results)


def _schema(_options: argparse.Namespace) -> None:
    from coolbits.study.load import study_json_schema

    print(json.dumps(study_json_schema(), indent=1))


def _accept(options: argparse.Namespace) -> None:
    from coolbits.artifacts.code import code_slice
    from coolbits.artifacts.manifest import read_manifest
    from coolbits.artifacts.store import accept

    codes = [code_slice(STAGES[read_manifest(directory).kind]) for directory in options.artifacts]
    for directory, code in zip(options.artifacts, codes, strict=True):
        accept(directory, code, _user(), options.why)
        print(f"{directory}: accepted under code {code.digest[:8]}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that nobody has
        return str(os.getuid())


if __name__ == "__main__":
    sys.exit(main())
