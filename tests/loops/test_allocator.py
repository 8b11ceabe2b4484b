"""Large tensors that come and go cost page faults once, not each time."""

import subprocess
import sys
from functools import cache

import pytest

# In an interpreter of its own: what the allocator was told by other tests would hold for a fork as well.
_PROGRAM = """
import resource, sys, torch
from coolbits.loops import allocator
if sys.argv[1]:
    getattr(allocator, sys.argv[1])()
# The heap grows over the first few; what counts is that it stays.
for repetition in range(28):
    if repetition == 24:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(int(sys.argv[2]), 1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@cache
def _faults(function: str, megabytes: int) -> int:
    program = [sys.executable, "-c", _PROGRAM, function, str(megabytes // 4)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an allocator of Linux")
def test_freed_memory_is_used_again() -> None:
    assert _faults("keep_freed_memory", 64) < _faults("", 64) / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an allocator of Linux")
def test_of_large_tensors_nothing_is_kept_where_little_is_to_be() -> None:
    large, small = (_faults("keep_little_freed_memory", megabytes) for megabytes in (64, 16))
    assert large > _faults("", 64) / 2
    assert small < large / 4 / 10
