"""Memory and CPU time of a running container, as the kernel counts them for its processes."""

from __future__ import annotations

import json

from .cluster import KindCluster

__all__ = ["at_rest"]

_SECONDS = 10
_SCRIPT = f"""
import json, os, re, time
def look():
    memory = ticks = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            memory += int(re.search(r"^Pss:\\s+(\\d+)", open(f"/proc/{{pid}}/smaps_rollup").read(), re.M)[1]) * 1024
            fields = open(f"/proc/{{pid}}/stat").read().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return memory, ticks
_, before = look()
time.sleep({_SECONDS})
memory, after = look()
print(json.dumps([memory, (after - before) / os.sysconf("SC_CLK_TCK") / {_SECONDS}]))
"""


def at_rest(cluster: KindCluster, namespace: str, workload: str) -> tuple[int, float]:
    """Measure memory and CPU time of a workload's container.

    Returns:
        PSS in bytes, and CPU time as a share of one core over ten seconds.
    """
    command = ("/opt/vmnic/bin/python", "-I", "-c", _SCRIPT)
    shown = cluster.kubectl("exec", "-n", namespace, workload, "--", *command)
    memory_bytes, share = json.loads(shown.strip().splitlines()[-1])
    return memory_bytes, share
