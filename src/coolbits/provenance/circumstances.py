"""Circumstances: by which code, from which tree, with which versions and on which device artifacts were made.

What holds of many artifacts of one kind has one line. Versions must agree all through what is behind one result,
devices within each kind: a figure drawn on a CPU from models trained on an accelerator is as it should be.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from coolbits.artifacts.code import Slice, code_slice
from coolbits.artifacts.environment import lock_digest
from coolbits.artifacts.store import ACCEPTED
from coolbits.provenance.findings import Finding, What, grouped, some
from coolbits.provenance.lineage import Artifact, Key, Lineage
from coolbits.provenance.records import Acceptance, Environment, parse, read_sealed
from coolbits.stages import STAGES

CodeOf = Callable[[str], Slice]
_Versions = frozenset[tuple[str, str]]
_Groups = dict[str, list[str]]
_THREADS = "different numbers of threads"


@cache
def present_code(kind: str) -> Slice:
    """Return the slice of the code that makes artifacts of a kind today."""
    return code_slice(STAGES[kind])


def check_circumstances(lineage: Lineage, code_of: CodeOf = present_code) -> Iterator[Finding]:
    """Yield what code, tree, versions and devices say against the lineage, or for information."""
    yield from grouped(finding for artifact in lineage for finding in _code(artifact, code_of))
    yield from grouped(finding for artifact in lineage for finding in _tree(artifact))
    yield from _disagreements(lineage)


def changed_modules(made: Slice, present: Slice) -> str:
    """Say which modules differ between two slices."""
    both = made.modules.keys() & present.modules.keys()
    parts = {
        "changed": [name for name in both if made.modules[name] != present.modules[name]],
        "new": present.modules.keys() - both,
        "gone": made.modules.keys() - both,
    }
    return "; ".join(f"{word}: {some(sorted(names), 4)}" for word, names in parts.items() if names)


def _code(artifact: Artifact, code_of: CodeOf) -> Iterator[Finding]:
    where = (artifact.label,)
    if artifact.kind not in STAGES:
        yield Finding("code", where, "no stage of today's code makes this kind of artifact")
        return
    if artifact.record is None:
        return
    present, made = code_of(artifact.kind), Slice(artifact.record.code.entry, artifact.record.code.modules)
    differing = changed_modules(made, present)
    try:
        acceptance = parse(Acceptance, read_sealed(artifact.directory / ACCEPTED))
    except FileNotFoundError:
        acceptance = None
    except ValueError as error:
        yield Finding("changed", (f"{artifact.label}/{ACCEPTED}",), str(error))
        acceptance = None
    if acceptance is not None:
        today = f"today's code ({differing})" if differing else "today's code"
        code = today if acceptance.digest == present.digest else "code that is not today's"
        by = f"{acceptance.who} on {acceptance.when[:10]}: {acceptance.why}"
        yield Finding("code", where, f"accepted under {code} by {by}", information=True)
    if made.digest != present.digest and (acceptance is None or acceptance.digest != present.digest):
        yield Finding("code", where, f"made by other code than today's ({differing})")


def _tree(artifact: Artifact) -> Iterator[Finding]:
    if artifact.record is None:
        return
    environment, where = artifact.record.environment, (artifact.label,)
    if environment.git is None:
        yield Finding("dirty", where, "made from no known commit", information=True)
    elif environment.git.dirty:
        commit = environment.git.commit[:8]
        yield Finding("dirty", where, f"made from a tree with changes that commit {commit} does not have")
    if environment.lock != lock_digest():
        said = f"made under another lock file ({_short(environment.lock)}) than today's ({_short(lock_digest())})"
        yield Finding("environment", where, said, information=True)


def _disagreements(lineage: Lineage) -> Iterator[Finding]:
    """Yield what differs behind one result; results behind which the same differs share a line."""
    interned: dict[_Versions, _Versions] = {}
    versions = {
        artifact.key: interned.setdefault(found, found)
        for artifact in lineage
        if artifact.record
        for found in [_versions(artifact.record.environment)]
    }
    tops: dict[tuple[What, str, tuple[str, ...]], list[str]] = defaultdict(list)
    said: dict[tuple[What, str, tuple[str, ...]], str] = {}
    for top in lineage.tops:
        for what, about, groups in _differing(lineage.behind(top), versions):
            key = (what, about, tuple(sorted(groups)))
            tops[key].append(top.label)
            said.setdefault(key, f"{about}: {_counted(groups)}")
    for key, labels in tops.items():
        yield Finding(key[0], tuple(labels), said[key], information=key[1] == _THREADS)


def _differing(artifacts: list[Artifact], versions: dict[Key, _Versions]) -> Iterator[tuple[What, str, _Groups]]:
    """Yield what has more than one value, and for each value the artifacts that have it."""
    recorded = [(artifact, artifact.record.environment) for artifact in artifacts if artifact.record]
    for kind in dict.fromkeys(artifact.kind for artifact, _ in recorded):
        own = [(artifact.label, made) for artifact, made in recorded if artifact.kind == kind]
        yield from _several("device", f"{kind} on different devices", [(name, made.computer) for name, made in own])
        yield from _several("device", _THREADS, [(name, made.threads or "any") for name, made in own])
    every = {versions[artifact.key] for artifact, _ in recorded}
    shared = frozenset.intersection(*every) if every else frozenset()
    names = _clashing(every)
    told = {found: some(sorted(f"{name} {of}" for name, of in found - shared if name in names), 6) for found in every}
    environments = [(artifact.label, told[versions[artifact.key]]) for artifact, _ in recorded]
    yield from _several("environment", "different environments", environments)


def _several(what: What, about: str, values: list[tuple[str, str]]) -> Iterator[tuple[What, str, _Groups]]:
    groups: _Groups = defaultdict(list)
    for label, value in values:
        groups[value].append(label)
    if len(groups) > 1:
        yield what, about, groups


def _versions(made: Environment) -> _Versions:
    return frozenset({**made.packages, "Python": made.python, "lock file": _short(made.lock)}.items())


def _clashing(environments: Iterable[_Versions]) -> set[str]:
    """Return the names that have several versions; what only some environments have clashes with nothing."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, version in set().union(*environments):
        found[name].add(version)
    return {name for name, versions in found.items() if len(versions) > 1}


def _counted(groups: _Groups) -> str:
    return "; ".join(f"{value} ({len(labels):,}, for example {labels[0]})" for value, labels in sorted(groups.items()))


def _short(digest: str | None) -> str:
    return digest[:8] if digest else "none"
