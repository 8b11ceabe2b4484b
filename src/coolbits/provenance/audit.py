"""The audit: from results back to the raw documents, every file, link, code slice and circumstance."""

from collections.abc import Iterator

from coolbits.provenance.circumstances import CodeOf, check_circumstances, present_code
from coolbits.provenance.contents import check_contents
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Lineage
from coolbits.provenance.links import check_links
from coolbits.provenance.outcomes import check_outcomes
from coolbits.provenance.sources import check_sources


def audit(lineage: Lineage, quick: bool = False, code_of: CodeOf = present_code) -> Iterator[Finding]:
    """Yield what is wrong with a lineage, and what a reader should know of it, as it is found.

    What can be said from manifests and records comes first; then files are hashed, with `quick` only small ones.
    `code_of` gives the slice of the code that makes a kind today.
    """
    yield from check_links(lineage)
    yield from check_circumstances(lineage, code_of)
    yield from check_outcomes(lineage)
    yield from check_sources(lineage)
    yield from check_contents(lineage, quick)
