"""Functions that domains get from a pool with one resource for each PF."""

import pytest
from lxml import etree

from tests.builders.decide import collect
from tests.builders.vm import policy, pool
from vmnic.cli.offline import decide_all
from vmnic.libvirt.rewrite import rewrite_domain

BUS = {"ens1f0": "0b", "ens1f1": "0c", "ens1f2": "0d"}


def node(name, **free):
    """Return a node with a PF for each link, of whose two VFs the given number is free."""
    pfs, specs = [], []
    for link, count in free.items():
        bus = f"0000:{BUS[link]}"
        pf = {"pciAddress": f"{bus}:00.0", "vendor": "8086", "device": "1521", "driver": "igb", "totalVfs": 7, "name": link}
        pf |= {"numVfs": 2, "firstVf": f"{bus}:10.0", "vfStride": 4, "vfs": [{"range": "0-1", "driver": "vfio-pci"}]}
        pfs.append(pf | {"held": [{"vf": f"{bus}:10.{4 * index}"} for index in range(2 - count)]})
        groups = [{"pool": "fast", "resource": f"vmnic.dev/fast-{link}"}]
        specs.append({"pciAddress": f"{bus}:00.0", "pool": "fast", "numVfs": 2, "groups": groups})
    return {
        "apiVersion": "vmnic.dev/v1alpha1",
        "kind": "NodeNicState",
        "metadata": {"name": name},
        "spec": {"synced": True, "pfs": specs},
        "status": {"bootID": "b", "host": {"iommu": True, "modules": ["vhost_net"]}, "pfs": pfs},
    }


def domain(name, count):
    nics = "".join(
        f"<interface type='bridge'><mac address='52:54:00:00:00:0{at}'/><source bridge='br0'/><model type='virtio'/></interface>"
        for at in range(count)
    )
    return f"<domain type='kvm'><name>{name}</name><memory unit='KiB'>1048576</memory><vcpu>4</vcpu><devices>{nics}</devices></domain>"


def buses(nodes, counts, spread, datapaths=("sriov", "virtio")):
    """Return for each domain the bus of each NIC's VF, or the present datapath of a NIC without a VF."""
    source = {"pool": "fast"} | ({"spread": spread} if spread else {})
    rule = policy(datapaths=list(datapaths), sriov=source, existing="Immediately")
    objects = collect(rule, pool(resourcePerPF=True), *nodes)
    for number, count in enumerate(counts):
        objects.add_xml(domain(f"d{number}", count))
    found = decide_all(objects, offline=True)
    texts = [
        rewrite_domain(one, decision, found.functions)
        for one, decision in zip(objects.domains.values(), found.vms, strict=True)
    ]
    return [
        [
            address.get("bus").removeprefix("0x") if (address := nic.find("source/address")) is not None else nic.get("type")
            for nic in etree.fromstring(text).findall("devices/interface")
        ]
        for text in texts
    ]


CASES = {
    "two NICs on two functions": ([node("n1", ens1f0=2, ens1f1=2)], [2], "PerPf", [["0b", "0c"]]),
    "the first function with a free VF": ([node("n1", ens1f0=0, ens1f1=1)], [1], "PerPf", [["0c"]]),
    "more NICs than functions": ([node("n1", ens1f0=2, ens1f1=2)], [3], "PerPf", [["0b", "0c", "bridge"]]),
    "any function": ([node("n1", ens1f0=2)], [2], "Any", [["0b", "0b"]]),
    "no spread given": ([node("n1", ens1f0=2)], [2], None, [["0b", "0b"]]),
    "one function only": ([node("n1", ens1f0=2)], [2], "PerPf", [["0b", "bridge"]]),
    "one function is used up": ([node("n1", ens1f0=2, ens1f1=0)], [2], "PerPf", [["0b", "bridge"]]),
    "two domains": ([node("n1", ens1f0=2, ens1f1=2)], [2, 2], "PerPf", [["0b", "0c"], ["0b", "0c"]]),
    "the second domain finds one left": ([node("n1", ens1f0=2, ens1f1=1)], [2, 2], "PerPf", [["0b", "0c"], ["0b", "bridge"]]),
    "all from one node": (
        [node("n1", ens1f0=2), node("n2", ens1f1=2)],
        [2],
        "PerPf",
        [["0b", "bridge"]],
    ),
    "the node that has both": (
        [node("n1", ens1f0=2), node("n2", ens1f1=2, ens1f2=2)],
        [2],
        "PerPf",
        [["0c", "0d"]],
    ),
}


@pytest.mark.parametrize(("nodes", "counts", "spread", "expected"), CASES.values(), ids=CASES)
def test_a_domain_gets_functions_of_the_resources_it_was_given(nodes, counts, spread, expected):
    found = buses(nodes, counts, spread)
    assert [sorted(one) for one in found] == [sorted(one) for one in expected]
