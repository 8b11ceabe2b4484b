"""Large tensors that come and go cost page faults once, not each time."""

import multiprocessing
import resource
import sys

import pytest
import torch

from coolbits.training.allocator import keep_freed_memory


def _faults(keep: bool, answers: "multiprocessing.SimpleQueue[int]") -> None:
    if keep:
        keep_freed_memory()
    # The heap grows over the first few; what counts is that it stays.
    for repetition in range(12):
        if repetition == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16, 1 << 20)
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an allocator of Linux")
def test_freed_memory_is_used_again() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    found = []
    for keep in (False, True):
        process = context.Process(target=_faults, args=(keep, answers))
        process.start()
        found.append(answers.get())
        process.join()
    assert found[1] < found[0] / 10
