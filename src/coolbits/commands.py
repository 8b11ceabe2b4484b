"""The commands that look back at results: audit, and what belongs to it."""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from coolbits.arguments import add_verb, megabytes
from coolbits.artifacts.errors import CoolbitsError

if TYPE_CHECKING:
    from coolbits.provenance.target import Target

_FINDINGS = 1
_RESULTS = Path("results")
_WITHOUT_LARGE = "leave out artifacts' files of more than so many megabytes; their digests stay"
_NO_FILES = "leave out all files of artifacts except manifests and records"


def add_commands(verbs: Any) -> None:
    """Add the parsers of these commands to the subparsers `verbs`; each has its function as `command`."""
    audit = add_verb(verbs, "audit", "check a result and everything it was made from, back to the documents")
    audit.add_argument(
        "target", type=Path, metavar="TARGET", help="an artifact's folder, a folder of artifacts, or a figure's file"
    )
    _add_results(audit)
    audit.add_argument("--quick", action="store_true", help="compare sizes, and hash only small files")
    _add_json(audit)
    audit.set_defaults(command=_audit)
    explain = add_verb(verbs, "explain", "print one page on what a result shows and what it was made from")
    explain.add_argument("target", type=Path, metavar="TARGET", help="an artifact's folder, a file in it, or a figure")
    _add_results(explain)
    _add_json(explain)
    explain.set_defaults(command=_explain)
    lineage = add_verb(verbs, "lineage", "write pages that lead from the marks of a figure to its runs and files")
    lineage.add_argument("targets", type=Path, nargs="+", metavar="TARGET", help="as for audit")
    lineage.add_argument("--out", type=Path, help="the folder to write to (default: lineage in the results folder)")
    _add_results(lineage)
    lineage.set_defaults(command=_lineage)
    settings = add_verb(verbs, "settings", "write a page of every key of a study with the value used")
    settings.add_argument("study", type=Path, metavar="STUDY", help="the study file")
    settings.add_argument("--out", type=Path, help="the file to write (default: results/settings/STUDY.html)")
    settings.set_defaults(command=_settings)
    diff = add_verb(verbs, "diff", "show what changed between two results, and how the numbers moved")
    diff.add_argument("first", type=Path, metavar="BEFORE", help="an artifact's folder, or a figure's file")
    diff.add_argument("second", type=Path, metavar="AFTER", help="another, in the same or another results folder")
    _add_results(diff)
    _add_json(diff)
    diff.set_defaults(command=_diff)
    collect = add_verb(verbs, "gc", "list, or with --yes remove, what no study reaches and no result was made from")
    collect.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="study files whose artifacts stay")
    _add_results(collect)
    collect.add_argument("--yes", action="store_true", help="remove what is listed")
    collect.set_defaults(command=_gc)
    crate = add_verb(verbs, "crate", "pack a study's results and their provenance as an RO-Crate")
    crate.add_argument("out", type=Path, metavar="OUT.zip", help="the file to write")
    crate.add_argument("--study", type=Path, default=Path("config.yaml"), help="the study file (default: config.yaml)")
    _add_results(crate)
    crate.add_argument("--workflow", type=Path, help="the Snakefile's folder (default: that of the results folder)")
    crate.add_argument("--license", metavar="URL", help="the license of the results (default: MIT, that of coolbits)")
    size = crate.add_mutually_exclusive_group()
    size.add_argument("--without-large", type=megabytes, dest="largest", metavar="MB", help=_WITHOUT_LARGE)
    size.add_argument("--no-files", action="store_const", const=0, dest="largest", help=_NO_FILES)
    crate.set_defaults(command=_crate)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=_RESULTS, help="the results folder (default: results)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _audit(options: argparse.Namespace) -> int:
    from coolbits.provenance.audit import audit
    from coolbits.provenance.lineage import trace
    from coolbits.provenance.target import find_target

    target = find_target(options.target, options.results)
    lineage = trace(target.root, target.keys)
    findings, out = [], sys.stdout
    # Progress goes where no findings go: those are for files and other programs, too.
    with redirect_stdout(sys.stderr):
        for finding in (*target.findings, *audit(lineage, options.quick)):
            findings.append(finding)
            if not options.json:
                tqdm.write(str(finding), file=out)
    held = sum(not finding.information for finding in findings)
    size = sum(artifact.bytes for artifact in lineage)
    if options.json:
        report = {"artifacts": len(lineage), "bytes": size, "findings": [finding.to_json() for finding in findings]}
        print(json.dumps(report, indent=1))
    else:
        verdict = f"{held} finding{'s' * (held != 1)}" if held else "clean"
        print(f"{verdict}: {len(lineage):,} artifacts, {size / 1e6:,.0f} MB" + ", sizes only" * options.quick)
    return _FINDINGS if held else 0


def _warn(*targets: "Target") -> None:
    """Say on the error stream what is held against the files that were given; the page is of what they say they are."""
    for finding in (finding for target in targets for finding in target.findings if not finding.information):
        print(finding, file=sys.stderr)


def _explain(options: argparse.Namespace) -> None:
    from coolbits.provenance.explain import explain
    from coolbits.provenance.lineage import trace
    from coolbits.provenance.page import page
    from coolbits.provenance.target import find_artifact

    target = find_artifact(options.target, options.results)
    _warn(target)
    lineage = trace(target.root, target.keys)
    explained = explain(lineage.artifacts[target.keys[0]], lineage)
    print(json.dumps(explained.to_json(), indent=1) if options.json else page(explained))


def _lineage(options: argparse.Namespace) -> None:
    from coolbits.provenance.pages.lineage_page import LARGEST, write_lineages
    from coolbits.provenance.target import find_target
    from coolbits.study.units import si_bytes

    targets = [find_target(path, options.results) for path in options.targets]
    _warn(*targets)
    root = targets[0].root
    for path, target in zip(options.targets, targets, strict=True):
        if target.root != root:
            raise CoolbitsError(f"{path}: in the results folder {target.root}, but {options.targets[0]} is in {root}")
    keys = list(dict.fromkeys(key for target in targets for key in target.keys))
    for page in write_lineages(root, keys, options.out or root / "lineage"):
        size = page.stat().st_size
        print(
            f"{page}: {si_bytes(size)}" + ", too large to be seen inside a report; open it by itself" * (size > LARGEST)
        )


def _settings(options: argparse.Namespace) -> None:
    from coolbits.artifacts.files import write_text
    from coolbits.provenance.pages.settings import settings_page
    from coolbits.study.load import load_study

    study = load_study(options.study)
    path = options.out or _RESULTS / "settings" / f"{study.study}.html"
    if path.is_dir():
        raise CoolbitsError(f"{'--out ' * bool(options.out)}{path}: a folder is where a file should be")
    write_text(path, settings_page(study))
    print(path)


def _diff(options: argparse.Namespace) -> None:
    from coolbits.provenance.difference import compare
    from coolbits.provenance.differences_page import difference_page
    from coolbits.provenance.lineage import trace
    from coolbits.provenance.target import find_artifact

    targets = [find_artifact(path, options.results) for path in (options.first, options.second)]
    _warn(*targets)
    kinds = [target.keys[0][0] for target in targets]
    if kinds[0] != kinds[1]:
        raise CoolbitsError(f"{options.second}: of kind {kinds[1]!r}, but {options.first} is of kind {kinds[0]!r}")
    lineages = [trace(target.root, target.keys) for target in targets]
    tops = [lineage.artifacts[target.keys[0]] for lineage, target in zip(lineages, targets, strict=True)]
    difference = compare(lineages[0], tops[0], lineages[1], tops[1])
    print(json.dumps(difference.to_json(), indent=1) if options.json else difference_page(difference))


def _gc(options: argparse.Namespace) -> None:
    from coolbits.provenance.garbage import HOURS_AT_WORK, demand_idle, find_garbage, other_studies, remove
    from coolbits.study.plan import make_plan
    from coolbits.study.units import si_bytes

    if not options.results.is_dir():
        raise CoolbitsError(f"{options.results}: no results folder; say with --results where it is")
    plans = [make_plan(path) for path in options.studies]
    names = {plan.study.study for plan in plans}
    demand_idle(options.results)
    wanted = {(node.kind, node.name): node.fingerprint for plan in plans for node in plan.nodes}
    sweep = find_garbage(options.results, wanted, names)
    for garbage in sweep.garbage:
        print(f"{garbage.path}: {si_bytes(garbage.bytes)}, {garbage.why}", flush=True)
        if options.yes:
            remove(garbage, options.results)
    for path in sweep.at_work:
        print(f"{path}: stays, a job may be at work in it: written to in the last {HOURS_AT_WORK} hours")
    if sweep.held:
        print(f"{len(sweep.held):,} artifacts that no given study wants stay: results that are there need them")
    if others := other_studies(options.results, names):
        print(f"not given: {', '.join(others)}; of these studies only results and what is behind them stay")
    size = f"{si_bytes(sum(garbage.bytes for garbage in sweep.garbage))}, {len(sweep.garbage):,} folders"
    print(f"freed: {size}" if options.yes else f"can go with --yes: {size}")


def _crate(options: argparse.Namespace) -> None:
    try:
        from coolbits.provenance.crate.contents import find_workflow
        from coolbits.provenance.crate.write import LICENSE, Order, write_crate
    except ModuleNotFoundError as error:
        raise CoolbitsError(f"crate needs the package {error.name}: pip install 'coolbits[crate]'") from None
    from coolbits.study.plan import make_plan
    from coolbits.study.units import si_bytes

    workflow = options.workflow or find_workflow(options.results)
    plan, terms = make_plan(options.study), options.license or LICENSE
    order = Order(plan, options.study, options.results, workflow, options.largest, terms)
    written = write_crate(order, options.out)
    print(f"{options.out}: {written.artifacts:,} artifacts; {written.files:,} files, {si_bytes(written.bytes)}")
    if written.files_left_out:
        print(f"left out: {written.files_left_out:,} files, {si_bytes(written.bytes_left_out)}")
