"""Software in a crate's metadata: the engine, and each environment that artifacts were made in, package by package."""

from collections.abc import Iterable
from urllib.parse import quote

from rocrate.rocrate import ROCrate

from coolbits.artifacts.hashing import digest_of
from coolbits.provenance.crate.graph import add, refs
from coolbits.provenance.lineage import Artifact
from coolbits.provenance.records import Environment

ENGINE = "#snakemake"
_APPLICATION = "SoftwareApplication"
_UNKNOWN = "unknown"


def environments(artifacts: Iterable[Artifact]) -> list[Environment]:
    """Return the environments in which artifacts were made."""
    return [artifact.record.environment for artifact in artifacts if artifact.record]


def versions(environments: Iterable[Environment], package: str) -> str:
    """Say the version of a package in these environments; all, if they differ."""
    found = {environment.packages[package] for environment in environments if package in environment.packages}
    return ", ".join(sorted(found)) or _UNKNOWN


def commits(environments: Iterable[Environment]) -> str:
    """Say the commit that these environments had checked out; all, if they differ."""
    return ", ".join(sorted({commit(environment) for environment in environments})) or _UNKNOWN


def commit(environment: Environment) -> str:
    """Say the commit of one environment, and whether the tree had changes that it lacks."""
    if environment.git is None:
        return _UNKNOWN
    return environment.git.commit + " with uncommitted changes" * environment.git.dirty


def identity_of(environment: Environment) -> str:
    """Return the @id of what was installed: Python, packages and lock file, whatever the machine."""
    return f"#environment/{digest_of([environment.python, environment.packages, environment.lock])[:12]}"


def add_environments(crate: ROCrate, found: Iterable[Environment]) -> None:
    """Add each environment once, and each package in it as software of its own."""
    for identity, environment in {identity_of(environment): environment for environment in found}.items():
        packages = [_add_package(crate, name, environment.packages[name]) for name in sorted(environment.packages)]
        add(
            *(crate, identity, _APPLICATION),
            name=f"Python {environment.python} with {len(packages)} packages",
            description=f"installed by the lock file of SHA-256 {environment.lock}" if environment.lock else None,
            url="https://www.python.org",
            softwareVersion=environment.python,
            softwareRequirements=refs(packages),
        )


def add_engine(crate: ROCrate, found: Iterable[Environment]) -> None:
    """Add Snakemake as what ran the workflow."""
    says = {"url": "https://snakemake.readthedocs.io", "softwareVersion": versions(found, "snakemake")}
    add(crate, ENGINE, _APPLICATION, name="Snakemake", **says)


def _add_package(crate: ROCrate, name: str, version: str) -> str:
    page = f"https://pypi.org/project/{quote(name)}/{quote(version)}/"
    return add(crate, page, _APPLICATION, name=name, softwareVersion=version, url=page)
