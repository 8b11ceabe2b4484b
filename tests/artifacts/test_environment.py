import shutil
import subprocess
from pathlib import Path

import pytest

from coolbits.artifacts import environment
from coolbits.artifacts.environment import capture_environment


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The function that puts the module `environment` at a place in somebody's repository and says what git is then."""

    def git(*arguments):
        said = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(said, check=True, capture_output=True, text=True).stdout.strip()

    def install(place, tracked):
        file = tmp_path / place
        file.parent.mkdir(parents=True)
        shutil.copy(environment.__file__, file)
        (tmp_path / "analysis.txt").write_text("of something else\n")
        git("init", "--quiet")
        git("add", "." if tracked else "analysis.txt")
        git("commit", "--quiet", "--message", "first")
        monkeypatch.setattr(environment, "__file__", str(file))
        monkeypatch.setattr(environment, "_REPOSITORY", Path(file).parents[3])
        capture_environment.cache_clear()
        return capture_environment()["git"], git("rev-parse", "HEAD")

    yield install
    capture_environment.cache_clear()


def test_a_record_names_the_commit_that_has_the_code(installed):
    found, commit = installed("src/coolbits/artifacts/environment.py", tracked=True)
    assert found == {"commit": commit, "dirty": False}


@pytest.mark.parametrize(
    "place", [".venv/lib/python3.11/site-packages/coolbits/artifacts/environment.py", "src/coolbits/artifacts/e.py"]
)
def test_a_package_in_a_repository_of_something_else_is_of_no_known_commit(installed, place):
    found, _ = installed(place, tracked=False)
    assert found is None
