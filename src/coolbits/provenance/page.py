"""The page that explains a result, as plain text."""

from collections.abc import Iterator

from coolbits.provenance.explain import Explanation
from coolbits.provenance.layout import INDENT, paragraph, table
from coolbits.provenance.recipes import Contrast, say
from coolbits.provenance.trained import say_trained
from coolbits.study.units import si_bytes


def page(explained: Explanation) -> str:
    """Return the explanation as text."""
    return "\n".join(_lines(explained))


def _lines(explained: Explanation) -> Iterator[str]:
    yield explained.name
    yield from paragraph(explained.caption)
    yield ""
    yield "WHAT IT TOOK"
    count, size = (sum(getattr(share, name) for share in explained.shares.values()) for name in ("artifacts", "bytes"))
    yield from paragraph(
        f"{count:,} artifacts, {si_bytes(size)}; {say_trained(explained.trained) or 'nothing trained'}; "
        f"{_hours(explained)}"
    )
    yield table(
        ("kind", "artifacts", "bytes", "minutes"),
        [
            (kind, f"{share.artifacts:,}", si_bytes(share.bytes), f"{share.seconds / 60:.1f}")
            for kind, share in explained.shares.items()
        ],
    )
    for kind, contrast in explained.recipes.items():
        if contrast.common or contrast.groups:
            yield ""
            yield f"RECIPE: {kind.upper()}"
            yield from _contrast(contrast, "run" if kind == "checkpoint" else "number")
    yield ""
    yield "MADE BY"
    for commit, count in explained.commits.items():
        yield f"{INDENT}commit {commit} ({count:,} artifacts)"
    versions = [f"{name} {' and '.join(found)}" for name, found in explained.versions.items()]
    yield from paragraph(", ".join(versions) + f"; threads {', '.join(explained.threads)}")
    yield f"{INDENT}begun {explained.started[0][:16]}, last begun {explained.started[1][:16]} (UTC)"
    yield ""
    yield "TO MAKE IT AGAIN"
    yield from (f"{INDENT}{command}" for command in explained.commands)
    yield from paragraph("STUDY.yaml is the study's file; config.yaml is taken without --configfile.")


def _hours(explained: Explanation) -> str:
    units = {device: "core hours" if device.startswith("cpu") else "hours" for device in explained.hours}
    spent = [f"{hours:.2f} {units[device]} on {device}" for device, hours in explained.hours.items()]
    return "; ".join(spent) or "no times recorded"


def _contrast(contrast: Contrast, heading: str) -> Iterator[str]:
    if contrast.common:
        yield from paragraph("; ".join(f"{name} {say(value)}" for name, value in contrast.common.items()))
    fields = list(dict.fromkeys(name for _, row in contrast.groups for name in row))
    if not fields:
        return
    if len(fields) <= len(contrast.groups):
        yield table((heading, *fields), [(label, *row.values()) for label, row in contrast.groups])
    else:
        labels = [label for label, _ in contrast.groups]
        yield table((heading, *labels), [(name, *(row[name] for _, row in contrast.groups)) for name in fields])
