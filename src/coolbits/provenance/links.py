"""Links: whether what an artifact says of its recipe, its parents and its code agrees with itself and with them."""

from collections import defaultdict
from collections.abc import Iterator

from coolbits.artifacts.code import Slice
from coolbits.artifacts.manifest import MANIFEST, RECORD
from coolbits.artifacts.node import Ref, fingerprint_of
from coolbits.provenance.findings import Finding, some
from coolbits.provenance.lineage import Artifact, Lineage, figure_lineage


def check_links(lineage: Lineage) -> Iterator[Finding]:
    """Yield what is wrong with manifests and records, and with the digests by which children name their parents."""
    for artifact in lineage:
        yield from artifact.faults
        yield from _with_itself(artifact)
    children: dict[tuple[str, str], list[str]] = defaultdict(list)
    for artifact in lineage:
        for role, parent in artifact.parents.items():
            found = lineage.artifacts[parent]
            if artifact.manifest and artifact.manifest.parents[role]["digest"] != found.digest:
                children[found.key].append(artifact.label)
    for key, named in children.items():
        found, every = lineage.artifacts[key], some(list(dict.fromkeys(named)))
        if found.manifest is None:
            yield Finding("missing", (found.label,), f"no such artifact; made from it: {every}")
        else:
            yield Finding("changed", (f"{found.label}/{MANIFEST}",), f"no longer what these were made from: {every}")


def _with_itself(artifact: Artifact) -> Iterator[Finding]:
    manifest, record = artifact.manifest, artifact.record
    place = (f"{artifact.label}/{MANIFEST}",)
    if manifest is not None:
        refs = {
            role: Ref(stated["kind"], stated["name"], stated["fingerprint"])
            for role, stated in manifest.parents.items()
        }
        if fingerprint_of(manifest.kind, manifest.recipe, refs) != manifest.fingerprint:
            yield Finding("changed", place, "its fingerprint is not that of its recipe and parents")
        if artifact.kind == "figure" and manifest.summary.get("lineage") != figure_lineage(manifest):
            yield Finding("changed", place, "its lineage is not that of its fingerprint and parents")
    if record is not None and Slice(record.code.entry, record.code.modules).digest != record.code.digest:
        place = (f"{artifact.label}/{RECORD}",)
        yield Finding("changed", place, "its code digest is not that of the modules that it lists")
