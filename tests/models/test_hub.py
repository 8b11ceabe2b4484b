"""What is downloaded of the hub says of which commit it is, reached or not."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from coolbits.models import hub
from coolbits.models.hub import commit_of, download_model

COMMIT = "0123456789" * 4


def test_out_of_reach_the_cache_tells_the_commit_of_a_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--someone--some"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert commit_of(download_model("someone/some", "main")) == COMMIT


OF_A_REPOSITORY = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "consolidated.safetensors",
    "consolidated-00001-of-00002.safetensors",
    "original/consolidated.safetensors",
    "fp16/model.safetensors.index.json",
    "onnx/config.json",
    "pytorch_model.bin",
    "tokenizer.json",
    "additional_chat_templates/tool_use.jinja",
    "modeling_own.py",
]
WEIGHTS = {"config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"}
TOKENIZER = {"tokenizer.json", "additional_chat_templates/tool_use.jinja"}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, WEIGHTS),
        ({"tokenizer": True}, WEIGHTS | TOKENIZER),
        ({"tokenizer": True, "code": True}, WEIGHTS | TOKENIZER | {"modeling_own.py"}),
    ],
)
def test_weights_are_downloaded_once_and_with_all_that_belongs_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, bool], wanted: set[str]
) -> None:
    """Mistral's repositories hold them twice, and transformers never reads the `consolidated` ones."""
    found: set[str] = set()

    def download(*_: object, allow_patterns: list[str], ignore_patterns: list[str], **__: object) -> str:
        chosen = filter_repo_objects(OF_A_REPOSITORY, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        found.update(chosen)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    download_model("someone/some", "main", **asked)
    assert found == wanted


def test_a_folder_that_is_no_snapshot_tells_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert commit_of(download_model("someone/some", "main")) is None
