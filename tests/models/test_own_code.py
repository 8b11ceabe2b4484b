"""What is left of code that came with a model, once the library's own class has opened it."""

import json
from pathlib import Path

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.own_code import forget_own_code


def test_files_name_the_code_no_more_and_say_all_else_as_before(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"naïve": "日本", "auto_map": {"AutoConfig": "own.Config"}}', encoding="utf-8"
    )
    (tmp_path / "tokenizer_config.json").write_text("{}")
    forget_own_code(tmp_path)
    assert json.loads((tmp_path / "config.json").read_bytes()) == {"naïve": "日本"}
    assert (tmp_path / "tokenizer_config.json").read_text() == "{}"


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CoolbitsError, match=r"tokenizer_config\.json: cannot be read as part of a model"):
        forget_own_code(tmp_path)
