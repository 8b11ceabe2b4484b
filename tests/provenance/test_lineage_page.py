"""The page of a figure's lineage, in a real browser: from a mark to rows, runs, artifacts and files, and no further."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from coolbits import cli
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Ref
from coolbits.provenance.pages.html import tag, values
from coolbits.provenance.pages.lineage_page import LARGEST, write_lineages

KEY = ("figure", "tiny/marks")
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">'&amp;"
ADDRESS = re.compile(r"#|data:image/")
MARKS = {
    "width": 100,
    "height": 50,
    "marks": [
        {"x": 20, "y": 10, "size": 4.0, "rows": {"loss": [1]}},
        {"x": 60, "y": 30, "size": 4.0, "rows": {"loss": [0, 1]}},
    ],
}
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50"><circle cx="20" cy="10" r="3"/></svg>'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60


class Browser:
    """Opens pages in Chromium, each with a profile of its own in the folder `home`."""

    def __init__(self, program: str, home: Path) -> None:
        self.program, self.home = program, home

    def dom(self, page: Path, fragment: str = "") -> str:
        """Return the page's elements as HTML after its script ran at an address with this fragment."""
        return self._run(page, fragment, "--dump-dom")

    def picture(self, page: Path, fragment: str = "") -> Path:
        """Return the file of a picture of the page."""
        file = self.home / f"{fragment.replace('/', '-')}.png"
        self._run(page, fragment, f"--screenshot={file}", "--window-size=1400,900", "--hide-scrollbars")
        return file

    def _run(self, page: Path, fragment: str, *options: str) -> str:
        address = f"{page.as_uri()}#{fragment}" if fragment else page.as_uri()
        # In a container Chromium has no sandbox of its own; the page is one that a test just wrote.
        common = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=5000",
        ]
        command = [self.program, *common, f"--user-data-dir={self.home / 'profile'}", *options, address]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout


def find_browser(home: Path) -> Browser:
    """Return a browser, or skip the test where there is none."""
    programs = list(filter(None, map(shutil.which, BROWSERS)))
    if not programs:
        pytest.skip(f"no headless browser: none of {', '.join(BROWSERS)} is on PATH")
    return Browser(programs[0], home)


class Elements(HTMLParser):
    """The elements of a page, in order: `found` has tags with their attributes, `text` all text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of one tag."""
        return [attributes for name, attributes in self.found if name == tag]


def draw_marks(lab, caption="What it shows.\n", options=None):
    """Draw a figure with two marks: the quantized model alone, and the mean of both rows of the table."""
    table = read_manifest(lab.root / "table" / "tiny" / "loss")
    parents = {"loss": Ref("table", table.name, table.fingerprint)}
    files = {"marks.svg": PICTURE, "marks.json": json.dumps(MARKS), "caption.txt": caption}
    lab.named("figure", "tiny/marks", {"figure": "marks", "options": options or {}}, parents, files=files)
    return KEY


def write(lab, key=KEY):
    (page,) = write_lineages(lab.root, [key], lab.root / "lineage")
    return page


@pytest.fixture
def page(lab):
    """The page of a figure with two marks."""
    draw_marks(lab)
    return write(lab)


@pytest.fixture
def browser(tmp_path):
    return find_browser(tmp_path / "browser")


@pytest.fixture
def panel(browser, page):
    """What the panel says at a fragment."""

    def at(fragment):
        dom = browser.dom(page, fragment)
        return Elements(dom[dom.index('id="panel"') :]).text

    return at


def test_a_mark_leads_to_the_rows_runs_and_artifacts_behind_it(panel, lab):
    said = panel("mark/1")
    assert "Mark 2 of 2" in said and "stands for 2 rows" in said
    assert "loss 0" in said and "loss 1" in said
    for kind in ("evaluation", "quantized", "checkpoint", "shards", "tokenizer", "corpus"):
        folder = lab.one(kind, "*/step_0000020" if kind == "checkpoint" else "*")
        assert f"{kind} {folder.relative_to(lab.root / kind)}" in said
    assert said.index("evaluation ") < said.index("checkpoint ") < said.index("corpus ")
    assert "step_0000010" not in said


def test_a_row_has_its_values_and_the_run_it_is_of(panel):
    said = panel("row/loss/1")
    assert "Row 1 of the table loss" in said
    for name, value in (("run", "trunk"), ("peak_lr", "0.01"), ("quantizer", "q"), ("bits", "3"), ("loss", "2.5")):
        assert f"{name}{value}" in said
    trajectory = re.search(r"neox-lr0.01-\w{8}", said)[0]
    assert f"Run {trajectory}" in panel(f"run/{trajectory}")


def test_an_artifact_has_its_folder_files_recipe_code_commit_device_and_time(panel, lab):
    folder = lab.one("checkpoint", "*/step_0000020")
    said = panel(folder.relative_to(lab.root).as_posix().replace("checkpoint", "artifact/checkpoint", 1))
    manifest, record = read_manifest(folder), json.loads((folder / "record.json").read_text())
    for name, entry in manifest.files.items():
        assert f"{name}{entry['bytes']} B{entry['sha256']}" in said
    circumstances = (record["code"]["digest"], "c" * 40, "cpu (Some CPU)", record["started"])
    for part in (f"results/checkpoint/{manifest.name}", manifest.fingerprint, manifest.digest, *circumstances):
        assert part in said
    assert "Recipe" in said and "made into" in said


def test_the_whole_result_and_the_artifacts_of_a_kind_have_panels_of_their_own(panel, lab):
    said = panel("")
    assert "figure/tiny/marks" in said and "marks.json" in said and "Runs drawn" in said
    assert "2 evaluations behind what is drawn" in panel("kind/evaluation")


@pytest.mark.parametrize("fragment", ["mark/7", "toString", "%"])
def test_a_fragment_that_names_nothing_breaks_nothing(panel, fragment):
    said = panel(fragment)
    assert "Nothing here has this name." in said


def test_marks_of_what_is_shown_stand_out(browser, page, lab):
    dom = browser.dom(page, "row/loss/0")
    classes = [
        attributes.get("class") or "" for attributes in Elements(dom).named("a") if "#mark/" in attributes["href"]
    ]
    assert classes == ["", "with"]
    dom = browser.dom(page, f"artifact/quantized/{lab.one('quantized').name}")
    classes = [
        attributes.get("class") or "" for attributes in Elements(dom).named("a") if "#mark/" in attributes["href"]
    ]
    assert classes == ["with", "with"]


def test_the_chosen_mark_can_be_seen_in_a_picture(browser, page):
    with Image.open(browser.picture(page)) as before, Image.open(browser.picture(page, "mark/1")) as after:
        assert before.size == after.size == (1400, 900)
        yellow = [
            sum(r > 200 and g > 200 and b < 200 for r, g, b in image.convert("RGB").get_flattened_data())
            for image in (before, after)
        ]
    assert yellow[0] == 0 < yellow[1]


def test_names_captions_and_recipes_are_text_whatever_they_hold(empty, build, browser):
    build(empty, run=HOSTILE)
    draw_marks(empty, caption=HOSTILE, options={HOSTILE: HOSTILE})
    page = write(empty)
    for fragment in ("", "mark/1"):
        dom = browser.dom(page, fragment)
        elements = Elements(dom)
        assert "<title>Lineage of figure/tiny/marks</title>" in dom
        assert len(elements.named("script")) == 2 and len(elements.named("img")) == 1
        assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
        assert HOSTILE in elements.text


def test_nothing_is_loaded_and_nothing_but_the_pages_own_script_runs(page):
    html = page.read_text()
    elements = Elements(html)
    addresses = [attributes[name] for _, attributes in elements.found for name in ("src", "href") if name in attributes]
    assert addresses and all(ADDRESS.match(address) for address in addresses)
    policy = next(each["content"] for each in elements.named("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert not {name for name, _ in elements.found} & {"link", "iframe", "object", "embed", "form", "base"}
    assert not re.search(
        r"@import|url\(|innerHTML|insertAdjacent|document\.write|\beval\(|fetch\(|XMLHttp|import\(", html
    )


def test_without_scripts_figure_caption_and_the_list_of_artifacts_are_there(page, lab):
    elements = Elements(page.read_text())
    assert "What it shows." in elements.text
    names = {attributes["id"] for attributes in elements.named("li")}
    assert f"artifact/quantized/{lab.one('quantized').name}" in names
    assert {"#kind/corpus", "#mark/0"} <= {attributes["href"] for attributes in elements.named("a")}
    assert len(page.read_bytes()) < LARGEST


def test_only_what_lies_behind_the_marks_is_told_of_and_all_is_counted(page, lab):
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page.read_text())[1])
    assert len(facts["artifacts"]) == len(list(lab.root.rglob("manifest.json"))) - 2  # the other step, the other figure
    assert "9 of 9 artifacts" in page.read_text()


def test_the_same_results_give_the_same_page_wherever_they_lie(page, lab, tmp_path):
    first = page.read_bytes()
    moved = shutil.move(lab.root, tmp_path / "elsewhere")
    (page,) = write_lineages(tmp_path / "elsewhere", [KEY], tmp_path / "out")
    assert page.read_bytes() == first and moved


@pytest.mark.parametrize(
    "damaged", ["figure/tiny/marks/marks.json", "figure/tiny/marks/marks.svg", "table/tiny/loss/table.parquet"]
)
def test_what_is_not_what_its_manifest_declares_is_not_shown(page, lab, damaged):
    (lab.root / damaged).write_bytes((lab.root / damaged).read_bytes() + b" ")
    with pytest.raises(CoolbitsError, match=f"{damaged}: not the file that its manifest declares"):
        write(lab)


def test_what_is_lost_or_at_fault_is_said_to_be(page, lab, browser):
    corpus, shards = lab.one("corpus"), lab.one("shards")
    shutil.rmtree(corpus)
    (shards / "record.json").write_text("{}")
    page = write(lab)
    assert "Not there, or its manifest is lost" in browser.dom(page, f"artifact/corpus/{corpus.name}")
    assert "at fault" in browser.dom(page, f"artifact/shards/{shards.name}")


def test_a_result_without_marks_has_a_page_of_all_behind_it(lab, browser):
    key = ("evaluation", lab.one("evaluation").name)
    dom = browser.dom(write(lab, key))
    assert f"Lineage of {key[1]}" in dom and f"corpus </span>{lab.one('corpus').name}" in dom


def test_the_command_writes_a_page_a_result(lab, page, capsys, tmp_path):
    page.unlink()
    assert cli.main(["lineage", str(lab.root / "figure" / "tiny"), "--results", str(lab.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in said] == [str(page), str(page.with_name("tokens.html"))]
    other = shutil.copytree(lab.root, tmp_path / "other")
    assert cli.main(["lineage", str(lab.one("table")), str(other / "table" / "tiny" / "loss")]) == 2
    assert "in the results folder" in capsys.readouterr().err


def test_text_is_escaped_where_it_meets_markup():
    assert tag("p", "<b>", tag("i", "&"), class_='"') == '<p class="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    block = values("x", {"<": "</script>\u2028"})
    assert block.count("<") == 2 and json.loads(block.partition(">")[2].rpartition("<")[0]) == {"<": "</script>\u2028"}
