"""How the C library's heap behaves in a serving process: what a large batch took goes back when it is answered.

Without this the first freed block of a megabyte moves glibc's own thresholds (mallopt(3)), and from then on such
blocks stay in the heap: about 1 MiB a worker here. One arena: LightGBM runs one thread a call, and Python has its own
allocator.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 128 * 1024


def keep_small() -> None:
    """Fix the thresholds at their usual starting values; does nothing where the C library has no ``mallopt``."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE), (_M_ARENA_MAX, 1)):
            mallopt(parameter, value)
