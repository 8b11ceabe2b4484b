import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coolbits.artifacts import environment
from coolbits.artifacts.environment import capture_environment, git_state


def forget():
    """Have the next look be a fresh one, as in a new process."""
    capture_environment.cache_clear()
    git_state.cache_clear()


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
        forget()
        return capture_environment()["git"], git("rev-parse", "HEAD")

    yield install
    forget()


def test_a_record_names_the_commit_that_has_the_code(installed):
    found, commit = installed("src/coolbits/artifacts/environment.py", tracked=True)
    assert found == {"commit": commit, "dirty": False}


def test_looking_at_a_repository_changes_nothing_in_it(installed, tmp_path):
    """Else a commit that somebody makes just then would fail: jobs and he would want the lock of its index at once."""
    found, _ = installed("src/coolbits/artifacts/environment.py", tracked=True)
    os.utime(tmp_path / "src/coolbits/artifacts/environment.py", (1, 1))  # which git would write down
    index = (tmp_path / ".git" / "index").read_bytes()
    forget()
    assert capture_environment()["git"] == found
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_a_repository_of_another_user_is_looked_at_all_the_same(installed, monkeypatch):
    found, _ = installed("src/coolbits/artifacts/environment.py", tracked=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to try it
    forget()
    assert capture_environment()["git"] == found


@pytest.mark.parametrize(
    "place", [".venv/lib/python3.11/site-packages/coolbits/artifacts/environment.py", "src/coolbits/artifacts/e.py"]
)
def test_a_package_in_a_repository_of_something_else_is_of_no_known_commit(installed, place):
    found, _ = installed(place, tracked=False)
    assert found is None
