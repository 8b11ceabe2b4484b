"""Pictures in the docs are figures of a study, and say so."""

import re
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = sorted((DOCS / "images").glob("*.png"))
PAGES = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
ORIGINS = (DOCS / "images" / "README.md").read_text()


def lineage(picture: Path) -> str:
    with Image.open(picture) as image:
        return str(image.info.get("coolbits", "none"))


def test_every_picture_has_a_line_with_its_study_and_its_lineage() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \| `([\w./-]+)` \| `([\w-]+)` \|.*\| `(\w+)` \|$", ORIGINS, re.MULTILINE)
    assert {name: digest for name, _, _, digest in rows} == {picture.name: lineage(picture) for picture in PICTURES}
    assert all((DOCS.parent / study).is_file() for _, study, _, _ in rows)


def test_every_picture_that_a_page_shows_is_there_and_no_other() -> None:
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+\.png)", page.read_text())}
    assert shown == {picture.name for picture in PICTURES}
