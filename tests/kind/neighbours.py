"""KubeVirt next to a kind cluster.

Its CRDs are in the cluster. `virt-api` and `virt-controller` run on this machine, and nodes reach them over their gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.api import Api
from tests.harness.certificates import write_pki
from tests.harness.controlplane import write_kubeconfig
from tests.harness.kubevirt import KubeVirt
from tests.harness.processes import Processes, stop_recorded

from .guest_images import LAUNCHER

if TYPE_CHECKING:
    from .cluster import KindCluster

__all__ = ["Neighbours"]

_ACCOUNTS = {"virt-api": "kubevirt-apiserver", "virt-controller": "kubevirt-controller"}


class Neighbours:
    """KubeVirt's processes of one cluster. They outlive this process, because `make kind-up` leaves them running."""

    def __init__(self, cluster: KindCluster) -> None:
        self._cluster = cluster
        self.programs = cluster.programs
        self.directory = cluster.directory / "kubevirt"
        self.pki = self.directory / "pki"
        self.processes = Processes(self.directory, die_with_parent=False)

    @property
    def api(self) -> Api:
        """Return the client of the cluster's API server."""
        return self._cluster.api

    def start(self) -> None:
        """Install KubeVirt and start its processes."""
        address = self._cluster.gateway()
        write_pki(self.pki, address)
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubevirt"}})
        for program, account in _ACCOUNTS.items():
            meta = {"name": account, "namespace": "kubevirt"}
            self.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
            token = self._cluster.token("kubevirt", account)
            write_kubeconfig(self.directory / f"{program}.kubeconfig", self.api.server, self._cluster.authority, token)
        KubeVirt(self, address=address, launcher=LAUNCHER).start()

    def stop(self) -> None:
        """Stop the processes, including those of an earlier run."""
        self.processes.stop_all()
        stop_recorded(self.directory)
