"""What a container receives with its devices, and which devices are preferred for it.

The names of environment variables are those that KubeVirt's launcher reads (`ResourceNameToEnvVar`, which keeps dashes). The
INFO variable and the device-info file have the shape that sriov-network-device-plugin and Multus agreed on. The functions here
have no side effects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from .devices import Device

__all__ = ["device_nodes", "environment", "prefer", "render_device_info"]

_CONTAINER = "/dev/vfio/vfio"


def environment(resource: str, addresses: Sequence[str], devices: Iterable[Device]) -> dict[str, str]:
    """Return the environment variables that name a container's devices.

    Args:
        resource: Name of the resource.
        addresses: Device ids that the kubelet asks for.
        devices: Those of them that are known.
    """
    devices = list(devices)
    name = resource.upper().replace("/", "_").replace(".", "_")
    known = {device.address: device for device in devices}
    # Those that come with others follow, so that KubeVirt, which takes addresses in order, spreads a VM's NICs over groups.
    others = {device.address: device for one in addresses if one in known for device in known[one].others}
    named = (*addresses, *others)
    info = {address: _info(address, (known | others).get(address)) for address in named}
    listed = ",".join(named)
    found = {f"PCIDEVICE_{name}": listed, f"PCIDEVICE_{name}_INFO": json.dumps(info, separators=(",", ":"))}
    # KubeVirt looks up host devices by PCI_RESOURCE_, and VFs by PCIDEVICE_.
    is_entire_function = any(device.index is None for device in devices)
    return found | ({f"PCI_RESOURCE_{name}": listed} if is_entire_function else {})


def _info(address: str, device: Device | None) -> dict[str, dict[str, str]]:
    found = {"generic": {"deviceID": address}}
    if device is not None and device.vfio:
        found["vfio"] = {"mount": _CONTAINER} | ({"dev-mount": f"/dev/vfio/{device.group}"} if device.group else {})
    return found


def device_nodes(devices: Iterable[Device]) -> list[str]:
    """Return the paths below /dev that a container needs.

    Devices of one IOMMU group share its path.
    """
    paths = []
    for device in (member for one in devices for member in one.members):
        if device.vfio:
            paths += [_CONTAINER, f"/dev/vfio/{device.group}"] if device.group else [_CONTAINER]
            paths += [f"/dev/vfio/devices/{device.vfio_device}"] if device.vfio_device else []
    return list(dict.fromkeys(paths))


def render_device_info(device: Device) -> str:
    """Return the content of a device-info file, which CNI plugins read.

    The format is device information specification 1.1.0.
    """
    pci = {"pci-address": device.address} | ({"pf-pci-address": device.pf} if device.index is not None else {})
    return json.dumps({"type": "pci", "version": "1.1.0", "pci": pci})


def prefer(devices: Collection[Device], must: Collection[str], size: int) -> list[str]:
    """Choose devices for a container, on one NUMA node if possible, then spread over PFs.

    Args:
        devices: The free devices and those that must be chosen.
        must: Addresses that must be chosen.
        size: Number of devices that the container needs.
    """
    chosen = [device for device in devices if device.address in must]
    free = [device for device in devices if device.address not in must]
    while len(chosen) < size and free:
        node = _numa_node(chosen, free, size - len(chosen))
        taken = Counter(device.pf for device in chosen)
        left = Counter(device.pf for device in free)
        best = min(free, key=lambda one: (one.numa_node != node, taken[one.pf], -left[one.pf], one.address))
        chosen.append(best)
        free.remove(best)
    return [device.address for device in chosen]


def _numa_node(chosen: Sequence[Device], free: Sequence[Device], missing: int) -> int | None:
    """Return the NUMA node of the next device.

    It is the node of most chosen devices, or else the node with the fewest free devices that suffice.
    """
    nodes = Counter(device.numa_node for device in chosen)
    if nodes:
        return nodes.most_common(1)[0][0]
    if missing == 1:
        # NUMA does not matter for a single device, so the PF with the most free devices decides.
        emptiest = Counter(device.pf for device in free).most_common(1)[0][0]
        return next(device.numa_node for device in free if device.pf == emptiest)
    counts = Counter(device.numa_node for device in free)
    return min(counts, key=lambda node: (counts[node] < missing, abs(counts[node] - missing), node is None, node or 0))
