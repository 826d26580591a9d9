"""Bounds of CPU time and memory for one input."""

import contextlib
import gc
import pathlib
import resource
import time

CPU_S = 1.0
"""CPU time of an admission request, in seconds. A reader at its bound takes 50 ms."""
MEMORY_BYTES = 64 * 2**20
_SPACE_BYTES = 2**30
"""Limit of memory in bytes, so that an input that would exhaust the machine fails at once."""
_TRIES = 3
"""Number of measurements, because another process may have emptied the CPU's caches during one of them."""


def within_bounds(prepare, act):
    """Pass a prepared input to an action, and fail if the action uses too much CPU time or memory."""
    for left in reversed(range(_TRIES)):
        took_s, grown, result = _measure(prepare(), act)
        if took_s <= CPU_S or not left:
            break
    assert took_s <= CPU_S, f"one input took {took_s:.1f} s of CPU time"
    assert grown <= MEMORY_BYTES, f"one input took {grown >> 20} MiB of memory"
    return result


def _measure(prepared, act):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _limited_memory():
        gc.disable()
        started = time.thread_time()
        try:
            result = act(prepared)
        finally:
            took_s = time.thread_time() - started
            gc.enable()
    return took_s, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024, result


@contextlib.contextmanager
def _limited_memory():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with pathlib.Path("/proc/self/statm").open() as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _SPACE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
