"""Large tensors that come and go cost page faults once, not each time."""

import subprocess
import sys

import pytest

# In an interpreter of its own: what the allocator was told by other tests would hold for a fork as well.
_PROGRAM = """
import resource, sys, torch
from coolbits.loops.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
# The heap grows over the first few; what counts is that it stays.
for repetition in range(28):
    if repetition == 24:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    program = [sys.executable, "-c", _PROGRAM, how]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an allocator of Linux")
def test_freed_memory_is_used_again() -> None:
    assert _faults("keep") < _faults("as it is") / 10
