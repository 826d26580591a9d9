"""Domains for libvirt, which `vmnic.libvirt` creates from one XML and a policy for each datapath."""

from __future__ import annotations

from dataclasses import dataclass

from tests.builders.decide import collect
from tests.builders.vm import node_state, policy, pool
from vmnic.cli.offline import decide_all
from vmnic.libvirt.rewrite import rewrite_domain
from vmnic.policy.guest_view import GuestView, guest_view

__all__ = ["MAC", "VLAN", "Planned", "domain", "plan_domain"]

MAC = "52:54:00:aa:00:07"
VLAN = 42
_XML = """<domain type='kvm'>
  <name>NAME</name>
  <memory unit='MiB'>MEMORY</memory>
  <vcpu>VCPUS</vcpu>CPU
  <os><type arch='x86_64' machine='q35'>hvm</type>SYSTEM</os>
  <features><acpi/></features>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <interface type='bridge'>
      <mac address='MAC'/>
      <source bridge='br7'/>EXTRA
      <model type='MODEL'/>
    </interface>DEVICES
  </devices>
</domain>
"""


@dataclass(frozen=True)
class Planned:
    """A domain as a policy changes it."""

    xml: str
    view: GuestView
    """What the plan says about its guest."""


def domain(datapath: str, pf: str, link: str, whole_pf: str, *, multiqueue: bool = False) -> str:
    """Return the XML of a domain without a system, whose one NIC gets a datapath. See `plan_domain`."""
    # Four queues take 400 MiB at most, and at most half of a guest's memory may be used for them.
    return plan_domain(datapath, pf, link, whole_pf, multiqueue=multiqueue, memory=820 if multiqueue else 64).xml


def plan_domain(
    datapath: str,
    pf: str,
    link: str,
    whole_pf: str,
    *,
    multiqueue: bool = False,
    memory: int,
    vcpus: int = 4,
    system: tuple[str, str] = ("", ""),
    extra: str | None = None,
) -> Planned:
    """Plan a domain whose one NIC gets a datapath.

    Args:
        datapath: Name of the datapath in a policy.
        pf: PF whose seven VFs belong to a pool.
        link: Its link.
        whole_pf: PF that belongs to a pool of whole NICs.
        multiqueue: Whether the policy asks for queues.
        memory: Memory in MiB.
        vcpus: Number of processors.
        system: XML below `<os>` and below `<devices>` that boots a guest.
        extra: Further children of the interface. If it is left out, a NIC that becomes a VF has a VLAN.
    """
    pressure = "High" if multiqueue else "Low"
    rule = policy(
        datapaths=[datapath], existing="Immediately", sriov={"pool": "fast"}, passthrough={"pool": "whole"}, networkPressure=pressure,
        multiqueue={"mode": "Always" if multiqueue else "Never"}, emulated={"model": "e1000e"}, accept=["GuestMtuChanges"],
    )  # fmt: skip
    shared, whole = node_state(), node_state("n2", pool="whole", vfs=0, function="Physical")
    for state, address in ((shared, pf), (whole, whole_pf)):
        state["spec"]["pfs"][0]["pciAddress"] = state["status"]["pfs"][0]["pciAddress"] = address
    shared["status"]["pfs"][0] |= {"name": link, "firstVf": pf.replace(":00.0", ":10.0"), "vfStride": 2}
    objects = collect(rule, pool(), pool("whole", function="Physical"), shared, whole)
    if extra is None:
        extra = f"\n      <vlan><tag id='{VLAN}'/></vlan>" if datapath == "sriov" else ""
    words = {
        "SYSTEM": system[0],
        "DEVICES": system[1],
        "NAME": datapath,
        "MEMORY": str(memory),
        "VCPUS": str(vcpus),
        # A guest boots only on the processor that there is.
        "CPU": "<cpu mode='host-passthrough'/>" if system[0] else "",
        "MODEL": "virtio" if datapath == "emulated" else "e1000e",
        "MAC": MAC,
        "EXTRA": extra,
    }
    text = _XML
    for word, value in words.items():
        text = text.replace(word, value)
    objects.add_xml(text)
    found = decide_all(objects, offline=True)
    (made,) = objects.domains.values()
    rewritten = rewrite_domain(made, found.vms[0], found.functions)
    assert rewritten != text, "the policy changes nothing"
    return Planned(rewritten, guest_view(found.vms[0], found.vms[0].nics[0]))
