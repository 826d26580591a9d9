"""Simulated hosts with good defaults, so that a test shows only what matters."""

from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import HostSpec, PfSpec

PF = "0000:0b:00.0"
OTHER_PF = "0000:0c:00.0"
CROWDED_PF = "0000:0d:00.0"


def pf(address: str = PF, **changes) -> PfSpec:
    defaults = {"profile": "82576", "name": f"ens{int(address[5:7], 16)}", "mac": f"52:54:00:00:{address[5:7]}:01"}
    return PfSpec(address=address, **(defaults | changes))


def sim_host(*pfs: PfSpec, waits: bool = False, **changes) -> SimHost:
    return SimHost(HostSpec(pfs=pfs or (pf(),), **changes), waits=waits)


def contract_host(*, waits: bool = False, **changes) -> SimHost:
    """The host that the contract describes."""
    return SimHost(contract_spec(**changes), waits=waits)


def contract_spec(**changes) -> HostSpec:
    """Three functions whose links are down, one of them on another NUMA node and in a crowded IOMMU group."""
    crowded = pf(CROWDED_PF, up=False, numa_node=1, shares_iommu_group=changes.get("iommu", True))
    pfs = (pf(PF, up=False), pf(OTHER_PF, up=False), crowded)
    return HostSpec(pfs=pfs, **({"available_modules": ("dummy",)} | changes))
