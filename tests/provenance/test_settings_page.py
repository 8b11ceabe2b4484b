"""The page of a study's settings: every key with the value used, defaults included, whatever the values hold."""

import re
from html import unescape
from pathlib import Path

import pytest

from coolbits import cli
from coolbits.artifacts.hashing import canonical_json
from coolbits.provenance.pages.settings import leaves, settings_page
from coolbits.study.load import load_study, parse_study
from coolbits.study.schema import Study

REPOSITORY = Path(__file__).resolve().parents[2]
STUDIES = sorted([REPOSITORY / "config.yaml", *(REPOSITORY / "workflow" / "studies").glob("*.yaml")])
HOSTILE = "</td><script>alert('x')</script>&amp;\""


def sections(html):
    """The lines of the page by section and heading: {section: {heading: {key: (value, note)}}}."""
    found = {}
    for name, body in re.findall(r'<section id="(\w+)".*?>(.*?)</section>', html, re.DOTALL):
        parts = re.split(r"<h3>(.*?)</h3>", body)
        headings = {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))
        found[name] = {unescape(heading.partition(" (")[0]): lines(part) for heading, part in headings.items()}
    return found


def lines(html):
    cells = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", html, re.DOTALL)
    return {unescape(key): (unescape(value), note) for key, value, note in cells}


def flat(value, name=""):
    """The leaves of plain JSON values by dotted name; a list of mappings has its places as names."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, dict) and value:
        return {key: leaf for part, item in value.items() for key, leaf in flat(item, f"{name}.{part}").items()}
    return {name.removeprefix("."): value if isinstance(value, str) else canonical_json(value)}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_key_of_every_study_is_there_with_its_value(path):
    study = load_study(path)
    shown = sections(settings_page(study))
    assert list(shown) == list(Study.model_fields)
    for name, value in study.identity().items():
        headed = {heading: table for heading, table in shown[name].items() if heading}
        if not headed:
            own = flat({name: value}) if not isinstance(getattr(study, name), Study.__base__) else flat(value)
            assert {key: text for key, (text, _) in shown[name][""].items()} == own
        for heading, table in headed.items():
            points = value[heading] if isinstance(value[heading], list) else [value[heading]]
            every = [flat(point) for point in points]
            assert set(table) == {key for point in every for key in point}
            for key, (text, _) in table.items():
                texts = [point[key] for point in every if key in point]
                assert text in (" | ".join(texts), *(texts[:1] if len(set(texts)) == 1 else ()))


def test_what_the_file_does_not_give_is_marked_as_a_default():
    study = parse_study(
        {
            "study": "tiny",
            "analyses": {"m": {"analysis": {"kind": "memory", "models": ["gpt-162m"], "optimizers": ["AdamW-32"]}}},
        }
    )
    shown = sections(settings_page(study))
    assert shown["bootstrap_samples"][""] == {"bootstrap_samples": ("1000", "default")}
    assert shown["analyses"]["m"]["analysis.vocabulary_size"] == ("50257", "default")
    assert shown["analyses"]["m"]["analysis.models"] == ('["gpt-162m"]', "")
    assert ("execution.compile", study.execution.compile, False) in list(leaves(study))


def test_a_length_that_is_left_out_is_the_one_that_the_runs_give_it():
    run = {"model": "micro-neox", "sequence_length": 64, "batch_tokens": 2048, "optimizer": {"kind": "adamw"}}
    study = parse_study(
        {
            "study": "tiny",
            "data": {"tokenizer": {"kind": "bpe", "vocabulary_size": 512}},
            "runs": {"a": run | {"schedule": {"kind": "constant", "warmup": 0}, "peak_lr": 0.01, "tokens": "200k"}},
            "quantizers": {"q": "gptq-w3-g64"},
            "evaluations": {"loss": {"measure": {"kind": "loss"}}},
        }
    )
    shown = sections(settings_page(study))
    assert shown["evaluations"]["loss"]["measure.sequence_length"][0] == "64"
    assert shown["quantizers"]["q"]["method.calibration.sequence_length"][0] == "64"


def test_values_are_text_whatever_they_hold():
    run = {"figure": HOSTILE, "options": {HOSTILE: HOSTILE}}
    study = parse_study({"study": "tiny", "analyses": {"t": {"analysis": {"kind": "theory"}}}, "figures": {"f": run}})
    html = settings_page(study)
    assert "<script" not in html
    assert sections(html)["figures"]["f"] == {"figure": (HOSTILE, ""), f"options.{HOSTILE}": (HOSTILE, "")}


def test_the_command_writes_the_page(tmp_path, capsys):
    out = tmp_path / "deep" / "settings.html"
    assert cli.main(["settings", str(REPOSITORY / "config.yaml"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text() == settings_page(load_study(REPOSITORY / "config.yaml"))
