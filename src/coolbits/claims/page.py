"""The page of claims: one self-contained HTML file, escaped, without scripts or network, fit for print."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNTESTED

# Blue, vermillion and greys are told apart by colour-blind readers; the verdict is always there in words, too.
_CLASSES = {SUPPORTED: "yes", CONTRADICTED: "no", UNTESTED: "none"}
_STYLE = """
body { font: 15px/1.45 Georgia, serif; color: #1a1a1a; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 0 0 .2rem; }
section { border-top: 1px solid #bbb; padding: .9rem 0; break-inside: avoid; }
p { margin: .25rem 0; }
.small, table { font: 13px/1.4 system-ui, sans-serif; color: #444; }
table { border-collapse: collapse; width: 100%; margin-top: .5rem; color: #1a1a1a; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid #999; }
th, td { padding: .2rem .8rem .2rem 0; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.yes { color: #0072b2; font-weight: 600; }
.no { color: #b84a00; font-weight: 600; }
.open { color: #333; font-weight: 600; }
.none { color: #777; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } }
"""


def page(findings: Sequence[Mapping[str, Any]], study: str, scale: str, confidence: float) -> str:
    """Return the page: a section a claim, a line a quantizer. `findings` are in the order of the page."""
    sections = "\n".join(_section(list(group)) for _, group in groupby(findings, key=lambda entry: entry["id"]))
    introduction = (
        "Each claim is judged on the rows of this study alone, by a rule written beside it, on models paired by seed "
        f"and, of losses, by held-out document. Intervals are {100 * confidence:g} % each, not corrected for how many "
        "claims and quantizers there are: of many without an effect some will be decided all the same. "
        "A verdict holds at this scale; it neither confirms nor refutes what a paper found at another."
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Claims: {escape(study)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Claims</h1>
<p class="small">Study <b>{escape(study)}</b>. {escape(scale)}.</p>
<p>{escape(introduction)}</p>
{sections}
</body>
</html>
"""


def _section(group: Sequence[Mapping[str, Any]]) -> str:
    first = group[0]
    rows = "\n".join(map(_row, group))
    return f"""<section id="{escape(first["id"], quote=True)}">
<h2>{escape(first["statement"])}</h2>
<p class="small"><code>{escape(first["id"])}</code> · {escape(first["source"])}</p>
<p class="small"><b>Measured:</b> {escape(first["statistic"])}</p>
<p class="small"><b>Rule:</b> {escape(first["rule"])}</p>
<table>
<tr><th>Quantizer</th><th>Verdict</th><th>Effect</th><th>Interval</th><th>n</th><th>Reading</th></tr>
{rows}
</table>
</section>"""


def _row(finding: Mapping[str, Any]) -> str:
    verdict = finding["verdict"]
    effect = interval = count = "–"
    if finding["effect"] is not None:
        effect = f"{finding['effect']:+.3g}"
        interval = f"{finding['low']:+.3g} to {finding['high']:+.3g}" if finding["low"] is not None else "–"
        units = f"{finding['units']} unit{'s' * (finding['units'] > 1)}"
        count = f"{finding['n']} from {units}; resampled: {finding['resampled']}"
    cells = (
        f"<td>{escape(finding['quantizer'])}</td>",
        f'<td><span class="{_CLASSES.get(verdict, "open")}">{escape(verdict)}</span>{_fallen(finding)}</td>',
        f'<td class="number">{escape(effect)}</td>',
        f'<td class="number">{escape(interval)}</td>',
        f"<td>{escape(count)}</td>",
        f"<td>{escape(finding['reading'])}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _fallen(finding: Mapping[str, Any]) -> str:
    """Say how many models behind a verdict are not wholly what their quantizer says, if any."""
    if not finding["fallen"]:
        return ""
    said = f"{finding['fallen']} of {finding['models']} models behind this had a fallback"
    return f'<br><span class="small">{said}</span>'
