"""The C library's allocator, told to keep what a step frees for the next one."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_SMALL, _KEPT = 32 << 20, 512 << 20  # bytes; no larger threshold of mapping is allowed


def keep_freed_memory() -> None:
    """Have the allocator of glibc keep freed memory instead of handing it back to the system; elsewhere do nothing.

    A step allocates and frees the same large tensors as the one before. By default each of them is mapped anew, which
    for a model of 0.3 M parameters means 9,500 page faults and a sixth of the time of a step.
    """
    _tell({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def keep_little_freed_memory() -> None:
    """Have the allocator of glibc keep up to 512 MB of what tensors of up to 32 MB leave; elsewhere do nothing.

    That is for work on models of any size: quantizing one of 0.2 M parameters takes a sixth less time, and what large
    tensors leave goes back at once as before.
    """
    _tell({_M_MMAP_THRESHOLD: _SMALL, _M_TRIM_THRESHOLD: _KEPT})


def _tell(settings: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in settings.items():
            mallopt(parameter, value)
