"""What a study says of calibration, and the recipes and nodes that come of it."""

from pathlib import Path
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.study.load import parse_study
from coolbits.study.plan import resolve

C4 = {"kind": "hub", "id": "allenai/c4", "files": ["en/c4-train.00001-of-01024.json.gz"]}


def test_documents_of_a_dataset_are_shown_in_place_of_the_methods_own(tiny: Any, planned: Any) -> None:
    plain = planned(tiny).of_kind("calibration")
    tiny["quantizers"]["gptq-w4"]["calibration"] = {"kind": "documents", "source": C4}
    plan = planned(tiny)
    (node,) = plan.of_kind("calibration")
    assert [other.recipe["calibration"]["kind"] for other in plain] == ["windows"]
    recipe = node.recipe["calibration"]
    assert (recipe["sequences"], recipe["sequence_length"]) == (1024, 2048)  # paper A's
    assert recipe["source"]["files"] == C4["files"]
    assert set(node.parents) == {"tokenizer"}
    shown = {other.recipe["method"]["kind"]: other for other in plan.of_kind("quantized")}
    assert shown["gptq"].recipe["method"]["calibration"] == recipe
    assert shown["gptq"].parents["calibration"] == node.ref
    assert "calibration" not in shown["rtn"].parents


def test_random_tokens_come_from_the_tokenizer(tiny: Any, planned: Any) -> None:
    tiny["quantizers"]["gptq-w4"]["calibration"] = {"kind": "random", "sequences": 9}
    (node,) = planned(tiny).of_kind("calibration")
    assert node.name.startswith("random-9x16-") and set(node.parents) == {"tokenizer"}


def test_a_preset_takes_other_documents(tiny: Any, planned: Any) -> None:
    tiny["quantizers"] = {"gptq-w4": {"preset": "gptq-w4-g16", "calibration": {"kind": "documents", "source": C4}}}
    (node,) = planned(tiny).of_kind("calibration")
    assert node.recipe["calibration"]["kind"] == "documents"


def test_files_enter_by_their_digest(tiny: Any, tmp_path: Path) -> None:
    source = {"kind": "files", "paths": ["c4.jsonl"]}
    tiny["quantizers"]["gptq-w4"]["calibration"] = {"kind": "documents", "source": source, "sequences": 2}
    with pytest.raises(CoolbitsError, match=r"quantizers\.gptq-w4\.calibration\.source\.paths: .*c4\.jsonl is no file"):
        resolve(parse_study(tiny), tmp_path)
    file = tmp_path / "c4.jsonl"
    file.write_text('{"text": "one"}')
    plan = resolve(parse_study(tiny), tmp_path)
    (node,) = plan.of_kind("calibration")
    assert node.recipe["calibration"]["source"]["sha256"] == [file_digest(file)]
    assert node.recipe["calibration"]["source"]["names"] == ["c4.jsonl"]
    assert plan.locations[file_digest(file)] == [str(file)]


def test_a_method_that_is_shown_nothing_takes_no_calibration(tiny: Any, planned: Any) -> None:
    tiny["quantizers"]["rtn-w3"]["calibration"] = {"kind": "random"}
    with pytest.raises(CoolbitsError, match=r"quantizers\.rtn-w3\.calibration: rtn is shown no tokens"):
        planned(tiny)


def test_files_named_by_digest_alone_cannot_be_found(tiny: Any, planned: Any) -> None:
    source = {"kind": "files", "names": ["c4.jsonl"], "sha256": ["0" * 64]}
    tiny["quantizers"]["gptq-w4"]["method"]["calibration"] = {"kind": "documents", "source": source}
    with pytest.raises(CoolbitsError, match=r"give their paths in quantizers\.gptq-w4\.calibration"):
        planned(tiny)
