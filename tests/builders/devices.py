"""PFs and what they offer to the kubelet, with good defaults."""

import asyncio
import time

from vmnic.agent.kubelet.devices import AdvertisedDevices
from vmnic.api.node_state import PfSpec, VfGroup
from vmnic.nodes.observed import ObservedPf, ObservedVf

from .host import PF

FAST = "vmnic.dev/fast"


def vf_id(index: int, bus: str = "0b") -> str:
    return f"0000:{bus}:10.{index}"


def observed(
    address: str = PF, *, count: int = 3, driver: str = "vfio-pci", numa_node: int | None = 0, **changes
) -> ObservedPf:
    bus = address[5:7]
    vfs = tuple(
        ObservedVf(index=i, pci_address=vf_id(i, bus), driver=driver, group=f"{int(bus, 16)}{i}", vfio_device=f"vfio{i}")
        for i in range(count)
    )
    return ObservedPf(
        pci_address=address, driver="igb", total_vfs=7, num_vfs=count, numa_node=numa_node, **({"vfs": vfs} | changes)
    )


def offer(address: str = PF, *, count: int = 3, fault: str = "", pf=..., **group) -> AdvertisedDevices:
    groups = (VfGroup(**({"pool": "fast", "resource": FAST} | group)),)
    spec = PfSpec(pci_address=address, pool="fast", num_vfs=count, groups=groups)
    return AdvertisedDevices(spec=spec, pf=observed(address, count=count) if pf is ... else pf, fault=fault)


def whole_offer(address: str = PF, *, driver: str = "vfio-pci", pool: str = "whole", **changes) -> AdvertisedDevices:
    groups = (VfGroup(pool=pool, resource=f"vmnic.dev/{pool}"),)
    spec = PfSpec(pci_address=address, pool=pool, function="Physical", groups=groups)
    pf = {"pci_address": address, "driver": driver, "group": "12", "vfio_device": "vfio9"} | changes
    return AdvertisedDevices(spec=spec, pf=ObservedPf(**pf))


async def eventually(condition, limit_s: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0.005)
