import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.load import load_study, parse_study, read_yaml, study_json_schema
from coolbits.study.plan import make_plan, resolve
from coolbits.study.recipes.vision import IDX_FILES
from coolbits.study.vision_choices import IdxChoice

REPOSITORY = Path(__file__).resolve().parents[2]
STUDIES = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "workflow" / "studies").glob("*.yaml"))]


@pytest.fixture
def study_file(tmp_path, tiny):
    """Write the tiny study with one value replaced at a dotted path; return the file."""

    def write(dotted, value):
        place = tiny
        *folders, last = dotted.split(".")
        for key in folders:
            place = place[key]
        place[last] = value
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(tiny, sort_keys=False))
        return path

    return write


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_repository_resolve(path, tmp_path):
    study, folder = load_study(path), path.parent
    sets = [run.data.path for runs in study.vision.values() for run in runs if isinstance(run.data, IdxChoice)]
    if study.pretrained or sets:  # files that a person downloads before
        folder = tmp_path / "workflow" / "studies"
        folder.mkdir(parents=True)
        for choice in study.pretrained.values():
            (folder / choice.source.path).resolve().parent.mkdir(exist_ok=True)
            (folder / choice.source.path).write_text("weights")
        for place in (folder / own for own in sets):
            place.resolve().mkdir(parents=True, exist_ok=True)
            for name in IDX_FILES:
                (place / name).write_bytes(name.encode())
    assert resolve(study, folder).targets()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_repository_satisfy_the_json_schema(path):
    jsonschema.validate(read_yaml(path), study_json_schema())


def test_the_committed_json_schema_is_the_one_generated():
    committed = json.loads((REPOSITORY / "workflow" / "schemas" / "study.schema.json").read_text())
    assert committed == study_json_schema()


def test_numbers_with_an_exponent_are_numbers(tmp_path, tiny):
    text = yaml.safe_dump(tiny, sort_keys=False).replace("peak_lr: 0.01\n", "peak_lr: 1e-2\n")
    assert "1e-2" in text
    (tmp_path / "study.yaml").write_text(text)
    assert load_study(tmp_path / "study.yaml").runs["trunk"][0].peak_lr == 0.01


def test_defaults_reach_every_run_and_lists_become_grids(tiny):
    study = parse_study(tiny)
    assert [run.peak_lr for run in study.runs["wsd"]] == [0.01, 0.03]
    assert all(run.batch_tokens == 64 for runs in study.runs.values() for run in runs)
    assert [branch.at for branch in study.runs["trunk"][0].cooldowns] == [640, 1280]


@pytest.mark.parametrize(
    ("dotted", "value", "sentence"),
    [
        ("runs.trunk.tokns", 5, "runs.trunk: unknown key 'tokns'; allowed: model, optimizer"),
        ("runs.trunk.tokens", -5, "runs.trunk.tokens: should be greater than 0; found -5"),
        ("runs.trunk.tokens", "many", "runs.trunk.tokens: 'many' is no count of tokens"),
        ("runs.trunk.peak_lr", "fast", "runs.trunk.peak_lr: should be a number; found 'fast'"),
        ("runs.trunk.schedule.kind", "zigzag", "runs.trunk.schedule.kind: should be 'constant', 'cosine'"),
        ("runs.trunk.model", "gpt-9", "gpt-9"),
        ("runs.trunk.cooldowns.at", "2M", "not on the trunk's constant part"),
        ("runs.wsd.schedule.decay", None, "runs.wsd.schedule.decay: missing"),
        ("runs.wsd.schedule.decay", "99%", "runs.wsd.schedule.decay: 1,280 tokens, but the run has 1,280, 128 of"),
        ("runs.wsd.batch_tokens", 63, "no multiple of sequence_length"),
        ("defaults.sede", 1, "defaults: unknown key 'sede'; allowed: model"),
        ("averages.lawa.run", "trunks", "averages.lawa.run: no run 'trunks'; runs are trunk, wsd"),
        ("averages.lawa.window", 50, "averages.lawa.window: 50 checkpoints 320 tokens apart do not fit in"),
        ("quantizers.rtn-w3.method.grid.bits", 9, "quantizers.rtn-w3.method.grid.bits: should be less than"),
        ("quantizers.gptq-w4", "gptq-w9", "gptq-w9"),
        ("evaluations.loss.quantizers", ["awq"], "evaluations.loss.quantizers: no 'awq'; there are rtn-w3, gptq-w4"),
        ("evaluations.loss.runs", ["x"], "evaluations.loss.runs: no 'x'; there are trunk, wsd"),
        ("figures.tokens.figure", "pie", "figures.tokens.figure: no figure 'pie'; there are tokens"),
        ("claims", ["earth-is-flat"], "claims: no claim 'earth-is-flat'"),
        ("study", "../up", "study: '../up' is no name; use at most 60"),
        ("data.corpus", {"kind": "files", "paths": ["gone.txt"]}, "data.corpus.paths: .*gone.txt is no file"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(study_file, dotted, value, sentence):
    path = study_file(dotted, value)
    with pytest.raises(CoolbitsError) as raised:
        make_plan(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert re.search(sentence, message), message


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"figures": {"a-b": {"figure": "tokens"}, "a_b": {"figure": "tokens"}}}, "figures: 'a_b' and 'a-b'"),
        ({"runs": {"w.5": {}, "w-5": {}}}, "runs: 'w-5' and 'w.5'"),
        ({"runs": {"w.5": {}}, "finetuning": {"w.5": {}, "w-5": {}}}, "finetuning: 'w-5' and 'w.5' of runs"),
    ],
)
def test_names_that_rules_would_share_are_refused(tiny, tmp_path, sections, names):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny | sections, sort_keys=False))
    with pytest.raises(CoolbitsError) as raised:
        make_plan(path)
    why = "differ only in '.', '_' and '-', which names of Snakemake's rules do not tell apart; rename one of them"
    assert str(raised.value) == f"{path}: {names} {why}"


def test_a_run_and_its_fine_tuning_may_have_one_name(tiny):
    tuned = {"start": {"run": "wsd"}, "data": {"kind": "embedded", "examples": 9}, "optimizer": {"kind": "adamw"}}
    tuned |= {"peak_lr": 1e-3, "schedule": {"kind": "cosine"}, "batch_examples": 8, "sequence_length": 16}
    assert set(parse_study(tiny | {"finetuning": {"wsd": tuned}}).finetuning) == {"wsd"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("study: a\nstudy: b\n", "given twice"),
        ("study: !!python/object:os.system x\n", "not readable as YAML"),
        ("- a\n- b\n", "should be keys and values"),
        ("", "should be keys and values"),
        ("study: [", "not readable as YAML"),
    ],
    ids=["alias bomb", "double key", "python tag", "list", "empty", "cut off"],
)
def test_yaml_traps_are_refused(tmp_path, text, sentence):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(CoolbitsError, match=sentence):
        load_study(path)


def test_a_missing_file_and_other_bytes_are_told_apart(tmp_path):
    with pytest.raises(CoolbitsError, match="no such study file"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"study: caf\xe9")
    with pytest.raises(CoolbitsError, match="not UTF-8 text"):
        load_study(tmp_path / "latin.yaml")
