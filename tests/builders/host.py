"""Simulated hosts with good defaults, so that a test shows only what matters."""

from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import HostSpec, PfSpec

PF = "0000:0b:00.0"
OTHER_PF = "0000:0c:00.0"


def pf(address: str = PF, **changes) -> PfSpec:
    defaults = {"profile": "82576", "name": f"ens{int(address[5:7], 16)}", "mac": f"52:54:00:00:{address[5:7]}:01"}
    return PfSpec(address=address, **(defaults | changes))


def sim_host(*pfs: PfSpec, waits: bool = False, **changes) -> SimHost:
    return SimHost(HostSpec(pfs=pfs or (pf(),), **changes), waits=waits)
