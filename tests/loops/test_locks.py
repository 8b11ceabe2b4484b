"""One process a folder, and the other is told which."""

import multiprocessing
import os
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.loops.locks import alone_in


def _try(folder: Path, answers: "multiprocessing.SimpleQueue[str]") -> None:
    try:
        with alone_in(folder):
            answers.put("alone")
    except CoolbitsError as error:
        answers.put(str(error))


def test_a_second_process_is_refused_by_name_while_the_first_holds_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def ask() -> str:
        process = context.Process(target=_try, args=(tmp_path, answers))
        process.start()
        process.join()
        return answers.get()

    with alone_in(tmp_path):
        assert f"process {os.getpid()} works here now" in ask()
    assert ask() == "alone"
