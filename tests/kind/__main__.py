"""Commands of the kind tier: `make test-kind`, `make kind-up`, `make kind-down` and `make image`.

Each prepares the lab first, and reports why if this machine cannot run it.
"""

import fcntl
import pathlib
import sys
import time
from typing import IO

import pytest

from tests.harness.debian import CannotRun

from .cluster import ClusterFailed
from .engine import EngineError
from .image import IMAGE
from .installation import install
from .lab import Lab, prepare

NAME = "vmnic"
"""The cluster of `make kind-up`. The tests have one of their own."""


def main(command: str) -> int:
    """Run a command, or print why this machine cannot run it."""
    started = time.monotonic()
    try:
        lab = prepare()
        lock = _take_turn(lab)
    except CannotRun as error:
        print(f"the kind tier cannot run on this machine: {error}")
        return 0 if command == "test" else 1
    try:
        code = COMMANDS[command](lab)
    except (ClusterFailed, EngineError) as error:
        print(error, file=sys.stderr)
        return 1
    lock.close()
    print(f"{command}: {time.monotonic() - started:.0f} s in all")
    return code


def _take_turn(lab: Lab) -> IO[str]:
    """Wait until no other run uses the engine's clusters. Closing the file ends the turn."""
    lock = (lab.cache / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another run on this machine", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test(lab: Lab) -> int:
    return pytest.main(["tests/kind", "-v", "-o", "timeout=300"])


def up(lab: Lab) -> int:
    lab.build_image()
    cluster = lab.start(NAME)
    lab.start_handlers(cluster)
    install(cluster)
    print(
        "a cluster with vmnic, KubeVirt, and two workers with simulated NICs that run VMs:\n"
        f"   export KUBECONFIG={cluster.kubeconfig}\n"
        f"   export PATH={cluster.programs.kubectl.parent}:{pathlib.Path(sys.executable).parent}:$PATH\n"
        "   kubectl apply -f examples/pools/tenant-fast.yaml\n"
        "   kubectl get snp,nicst\n"
        "   kubectl apply -f examples/namespace.yaml -f examples/policies/tenants.yaml\n"
        "   kubectl apply -f tests/kind/guest/vm.yaml                       # a VM that boots\n"
        "   kubectl logs -n tenants -l vm.kubevirt.io/name=guest -c guest-console-log --tail=-1\n"
        "   make kind-down"
    )
    return 0


def down(lab: Lab) -> int:
    lab.cluster(NAME).delete()
    return 0


def image(lab: Lab) -> int:
    lab.build_image()
    print(f"{IMAGE}: {lab.engine.run('images', '--format', '{{.Size}}', IMAGE).strip()}")
    return 0


COMMANDS = {"test": test, "up": up, "down": down, "image": image}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
