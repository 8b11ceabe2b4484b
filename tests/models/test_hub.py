"""What is downloaded of the hub says of which commit it is, reached or not."""

from pathlib import Path

import huggingface_hub
import pytest

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


def test_a_folder_that_is_no_snapshot_tells_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert commit_of(download_model("someone/some", "main")) is None
