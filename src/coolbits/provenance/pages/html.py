"""HTML that cannot be broken by what it says: text is escaped where it meets markup, by construction.

A page may load nothing and run nothing but its own script: its content security policy names the digests of both.
"""

import json
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from typing import Any

_EMPTY = frozenset({"img", "meta"})


class Html(str):
    """Text that is HTML; all other text becomes HTML by being escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """Return an element; attributes and children that are None are left out.

    An underscore at the end of an attribute's name is dropped, others become hyphens: `class_`, `aria_label`.
    """
    stated = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{stated}>" if name in _EMPTY else f"<{name}{stated}>{join(children)}</{name}>")


def join(parts: Iterable[str | None]) -> Html:
    """Return parts one after the other, each escaped unless it is HTML."""
    return Html("".join(part if isinstance(part, Html) else escape(part, quote=True) for part in parts if part))


def table(heading: Iterable[str], rows: Iterable[Iterable[str | None]]) -> Html:
    """Return a table with a row of headings."""
    top = tag("tr", *(tag("th", name, scope="col") for name in heading))
    lines = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    return tag("table", tag("thead", top), tag("tbody", *lines))


def values(name: str, value: Any) -> Html:
    """Return a block of JSON that a script finds by its id `name`; no text in it can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
    return Html(f'<script type="application/json" id="{escape(name, quote=True)}">{safe}</script>')


def document(title: str, body: Html, style: str, script: str = "", about: str = "") -> Html:
    """Return a whole page; `about` is what it says of itself to programs, under the name `coolbits`."""
    digests = {"style-src": style, "script-src": script}
    allowed = [f"{source} 'sha256-{_digest(text)}'" for source, text in digests.items() if text]
    policy = "; ".join(["default-src 'none'; img-src data:", *allowed])
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width"),
        tag("meta", name="coolbits", content=about) if about else None,
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    end = Html(f"<script>{script}</script>") if script else None
    page = tag("html", Html("\n"), tag("head", *head), Html("\n"), tag("body", body, end), lang="en")
    return Html(f"<!DOCTYPE html>\n{page}\n")


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
