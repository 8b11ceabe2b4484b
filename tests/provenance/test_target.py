"""What a path means: a folder, a file in one, or a figure that was found elsewhere."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.target import figure_digest, find_artifact, find_target

FIGURE = ("figure", "tiny/tokens")


@pytest.mark.parametrize(
    "path", ["figure/tiny/tokens", "figure/tiny/tokens/tokens.svg", "figure/tiny/tokens/manifest.json"]
)
def test_a_folder_and_the_files_in_it_mean_the_artifact(lab, path):
    target = find_target(lab.root / path, Path("absent"))
    assert (target.root, target.keys, target.findings) == (lab.root, (FIGURE,), ())


def test_a_folder_of_artifacts_means_all_of_them(lab):
    kinds = {kind for kind, _ in find_target(lab.root, Path("absent")).keys}
    assert kinds == {path.name for path in lab.root.iterdir()}
    below = find_target(lab.one("checkpoint").parent, Path("absent"))
    assert [name.rpartition("/")[2] for _, name in below.keys] == ["step_0000010", "step_0000020"]


def test_relative_paths_and_links_are_followed(lab, monkeypatch, tmp_path):
    monkeypatch.chdir(lab.one("figure"))
    assert find_target(Path(), Path("absent")).keys == (FIGURE,)
    (tmp_path / "link").symlink_to(lab.root)
    assert find_target(tmp_path / "link" / "figure", Path("absent")).root == lab.root


@pytest.mark.parametrize("moved", ["figure", "figure/tiny", "figure/tiny/tokens", "checkpoint"])
@pytest.mark.parametrize("path", ["figure/tiny/tokens", "figure/tiny/tokens/tokens.svg", "figure/tiny", "figure", ""])
def test_links_inside_results_do_not_lead_out_of_them(lab, move_away, path, moved, monkeypatch):
    before = find_target(lab.root / path, Path("absent"))
    move_away(moved)
    assert find_target(lab.root / path, Path("absent")) == before
    monkeypatch.chdir(lab.root / "table")
    assert find_target(Path("..", path), Path("absent")) == before


@pytest.mark.parametrize("of", ["figure/tiny/tokens", "figure/tiny/tokens/tokens.svg", "figure/tiny", "figure"])
def test_a_link_to_a_part_of_results_means_it_there(lab, tmp_path, of):
    (tmp_path / "table").mkdir()
    link = tmp_path / "table" / "link"
    link.symlink_to(lab.root / of)
    target = find_target(link, Path("absent"))
    assert (target.root, target.keys) == (lab.root, (FIGURE,))


def test_results_may_lie_in_a_folder_named_as_a_kind(lab, tmp_path):
    moved = tmp_path / "figure" / "table"
    shutil.move(lab.root, moved)
    assert find_target(moved / "figure" / "tiny" / "tokens", Path("absent")).root == moved
    assert find_target(moved, Path("absent")).root == moved


def test_a_study_may_be_named_as_a_kind(empty, build):
    build(empty, "figure")
    target = find_target(empty.root / "figure" / "figure" / "tokens", Path("absent"))
    assert (target.root, target.keys) == (empty.root, (("figure", "figure/tokens"),))


def test_an_artifact_without_a_manifest_is_found_by_its_place(lab):
    (lab.one("figure") / "manifest.json").write_text("{")
    assert find_target(lab.one("figure"), Path("absent")).keys == (FIGURE,)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_figure_file_found_elsewhere_leads_back(lab, tmp_path, suffix):
    copy = Path(shutil.copy(lab.root / f"figure/tiny/tokens/tokens.{suffix}", tmp_path / f"fig3.{suffix}"))
    target = find_target(copy, lab.root)
    assert target.keys == (FIGURE,)
    (finding,) = target.findings
    assert finding.information
    assert str(finding) == f"note        {copy}: byte for byte figure/tiny/tokens/tokens.{suffix}"


def test_an_edited_copy_leads_back_and_is_a_finding(lab, tmp_path):
    copy = tmp_path / "fig3.svg"
    copy.write_text((lab.root / "figure/tiny/tokens/tokens.svg").read_text().replace("</svg>", "<!-- nicer --></svg>"))
    (finding,) = find_target(copy, lab.root).findings
    assert not finding.information
    assert str(finding) == (
        f"changed     {copy}: says that it is figure/tiny/tokens, but its bytes are not: "
        "it was edited, or saved by another program"
    )


def test_a_png_saved_by_another_program_keeps_its_digest_if_that_program_keeps_text(lab, tmp_path):
    with Image.open(lab.root / "figure/tiny/tokens/tokens.png") as picture:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("coolbits", picture.info["coolbits"])
        picture.save(tmp_path / "saved.png", pnginfo=text)
    assert find_target(tmp_path / "saved.png", lab.root).keys == (FIGURE,)


@pytest.mark.parametrize("content", [b"", b"<svg></svg>", b"\x89PNG\r\n\x1a\n", b"coolbits:" + b"0" * 64])
@pytest.mark.parametrize("suffix", ["svg", "png", "txt"])
def test_other_files_have_no_digest(tmp_path, content, suffix):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    assert figure_digest(path) is None


def refusal(function, *arguments):
    with pytest.raises(CoolbitsError) as error:
        function(*arguments)
    return str(error.value)


def test_each_thing_that_means_nothing_is_refused_in_one_sentence(lab, tmp_path):
    absent, text, folder = tmp_path / "absent", tmp_path / "text.txt", tmp_path / "folder"
    text.write_text("x")
    folder.mkdir()
    assert refusal(find_target, absent, lab.root) == f"{absent}: no such file or folder"
    assert refusal(find_target, text, lab.root) == (
        f"{text}: neither in an artifact nor a figure's SVG or PNG with a coolbits digest in it"
    )
    assert refusal(find_target, folder, lab.root) == (
        f"{folder}: no artifacts in it; name a results folder, or a folder or file in one"
    )


def test_a_figure_of_other_results_is_refused(lab, tmp_path):
    copy = Path(shutil.copy(lab.root / "figure/tiny/tokens/tokens.svg", tmp_path))
    assert refusal(find_target, copy, tmp_path / "absent") == (
        f"{tmp_path / 'absent'}: no results folder with figures; say with --results where it is"
    )
    digest = figure_digest(copy)
    shutil.rmtree(lab.root / "figure" / "tiny")
    assert refusal(find_target, copy, lab.root) == (
        f"{copy}: its lineage {digest[:8]} is that of no figure in {lab.root}; it was drawn in another results folder, "
        "or from data, options or code that have changed since"
    )


def test_where_one_artifact_is_wanted_several_are_refused(lab):
    assert refusal(find_artifact, lab.root / "evaluation", lab.root) == (
        f"{lab.root / 'evaluation'}: 2 artifacts; name the folder of one, with a manifest.json in it"
    )


def test_where_one_artifact_is_wanted_its_manifest_must_be_readable(lab):
    for name in ("manifest.json", "record.json"):
        (lab.one("table") / name).write_text("{")
    assert refusal(find_artifact, lab.one("table"), lab.root) == (
        f"{lab.one('table')}: neither manifest.json nor record.json can be read; `coolbits audit` says why"
    )
