"""One process a folder, and the other is told which."""

import errno
import fcntl
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.loops.locks import alone_in, demand_free


def _try(folder: Path, answers: "multiprocessing.SimpleQueue[str]") -> None:
    try:
        with alone_in(folder):
            answers.put("alone")
    except CoolbitsError as error:
        answers.put(str(error))


@pytest.mark.parametrize(("job", "named"), [(None, ""), ("4711", ", SLURM job 4711,")])
def test_a_second_process_is_refused_by_name_while_the_first_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, named: str
) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)

    def ask() -> str:
        process = context.Process(target=_try, args=(tmp_path, answers))
        process.start()
        process.join()
        return answers.get()

    with alone_in(tmp_path):
        holder = f"process {os.getpid()} on {socket.gethostname()}{named}"
        assert ask() == f"{tmp_path}: {holder} works here now; wait for it, or stop it"
    assert ask() == "alone"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    sentence = (
        f"{tmp_path}: the file system cannot lock files \\({os.strerror(number)}\\), .* put results on one that can"
    )
    with pytest.raises(CoolbitsError, match=sentence), alone_in(tmp_path):
        pass
    with pytest.raises(CoolbitsError, match="the file system cannot lock files"):
        demand_free(tmp_path / "lock")


def test_other_refusals_of_a_disk_are_left_to_who_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), alone_in(tmp_path):
        pass
