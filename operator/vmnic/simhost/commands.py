"""Events of a simulated machine that no host operation causes.

Functions are opened, cables are pulled, and other programs run.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from .kernel import refuse
from .model import PASSTHRU, Device, Machine, Pf, Upper, Vf

__all__ = ["Commands"]


class Commands:
    """Commands, one per method. A method raises OSError if the kernel would refuse."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def named(self, name: str) -> Callable[[Any], Any] | None:
        """Return the command with this name, or None."""
        found: Callable[[Any], Any] | None = None if name.startswith("_") or name == "named" else getattr(self, name, None)
        return found

    def hold(self, address: str) -> None:
        """Open the VFIO device of a function, as QEMU does."""
        self._openable(address).held = True

    def hold_group(self, address: str) -> None:
        """Open the VFIO group of a function in a container, without opening the device."""
        self._openable(address).group_held = True

    def release(self, address: str) -> None:
        """Close the device and the group of a function that may have disappeared."""
        found = self._machine.find(address)
        if found is not None:
            found.held = found.group_held = False

    def set_cable(self, argument: Mapping[str, Any]) -> None:
        """Connect or pull the cable of a PF."""
        pf = self._pf(argument["link"])
        pf.cable = bool(argument["plugged"])
        self._machine.tell_link("newlink", pf)

    def heal(self, link: str) -> None:
        """Restore a port that loses its link while it has VFs."""
        self._pf(link).cut_by_vfs = False

    def break_port(self, argument: Mapping[str, Any]) -> None:
        """Make a port lose its link while it has VFs, except with one number of them."""
        pf = self._pf(argument["link"])
        pf.cut_by_vfs, pf.works_with = True, int(argument.get("works_with", 0))

    def assign_address(self, argument: Mapping[str, str]) -> None:
        """Assign an IP address to a link of a PF."""
        (self._machine.find_port(argument["link"]) or self._pf(argument["link"])).addresses.append(argument["address"])

    def remove_addresses(self, link: str) -> None:
        """Remove all IP addresses from a link of a PF."""
        (self._machine.find_port(link) or self._pf(link)).addresses.clear()

    def add_unicast(self, argument: Mapping[str, str]) -> None:
        """Add an address to the unicast filter of a PF's link, as `bridge fdb add` does."""
        self._pf(argument["link"]).unicast.append(argument["mac"])

    def set_promiscuous(self, argument: Mapping[str, Any]) -> None:
        """Make the link of a PF promiscuous, or end that."""
        self._pf(argument["link"]).promiscuous = bool(argument["on"])

    def add_upper(self, argument: Mapping[str, Any]) -> None:
        """Add a virtual link on top of another link.

        A macvtap or macvlan in passthru mode excludes others on the same lower link.
        """
        upper = Upper(**({"mac": self._machine.new_mac()} | dict(argument)))
        beside = [one for one in self._machine.uppers if one.lower == upper.lower and one.kind.startswith("macv")]
        if upper.kind.startswith("macv") and beside and PASSTHRU in (upper.mode, *(one.mode for one in beside)):
            raise refuse(errno.EINVAL, f"{beside[0].name} is on {upper.lower}")
        self._machine.uppers.append(upper)
        self._machine.tell_upper("newlink", upper)

    def move_link(self, link: str) -> None:
        """Move a link to another network namespace, as a CNI does."""
        upper = next((one for one in self._machine.uppers if one.name == link and not one.moved), None)
        if upper is not None:
            self._machine.tell_upper("dellink", upper)
            upper.moved = True
            return
        found = self._machine.find_link(link)
        if found is None:
            raise refuse(errno.ENODEV, f"no link is called {link}")
        # The event comes first, because a link in another namespace sends none to this one.
        self._machine.tell_link("dellink", found)
        found.moved = True

    def bring_links_back(self, _: Any) -> None:
        """Delete the other network namespaces, so that their links return."""
        # The kernel moves physical links back when their namespace ends, and destroys virtual ones.
        self._machine.uppers = [upper for upper in self._machine.uppers if not upper.moved]
        for one in [one for one in self._machine.functions() if one.moved]:
            one.moved = False
            self._machine.tell_link("newlink", one)

    def rename_link(self, argument: Mapping[str, str]) -> None:
        """Rename the link of a PF."""
        pf = self._pf(argument["link"])
        pf.net_name = argument["name"]
        self._machine.tell_link("newlink", pf)

    def bind_device(self, argument: Mapping[str, str]) -> None:
        """Give a PCI function that is no NIC another driver, or none."""
        device = self._machine.devices.get(argument["address"])
        if device is None:
            raise refuse(errno.ENODEV, f"no such device is at {argument['address']}")
        device.driver = argument["driver"]

    def put_file(self, argument: Mapping[str, str]) -> None:
        """Write a file of another program, or remove it if the text is empty."""
        self._machine.files.pop(argument["path"], None)
        if argument["text"]:
            self._machine.files[argument["path"]] = argument["text"]

    def _openable(self, address: str) -> Pf | Vf:
        """Find a function whose VFIO group can be opened.

        vfio-pci drives all functions of the group, and no other process has it open.
        """
        one = self._machine.find(address)
        if one is None or one.driver != "vfio-pci":
            raise refuse(errno.ENODEV, f"{address} is not on vfio-pci")
        if not self._machine.is_viable(one.group):
            raise refuse(errno.EPERM, f"the IOMMU group of {address} is not viable")
        # A domain without the fixed mapping is refused (`require_direct` in drivers/iommu/iommu.c).
        if any(region.endswith(" direct") for region in self._machine.regions.get(one.group or 0, ())):
            raise refuse(errno.EINVAL, f"the firmware requires a fixed mapping for {address}")
        # A VFIO group can be open only once at a time.
        members = (other for other in self._machine.members(one.group) if not isinstance(other, Device))
        if any(other.held or other.group_held for other in members):
            raise refuse(errno.EBUSY, f"the IOMMU group of {address} is open")
        return one

    def _pf(self, name: str) -> Pf:
        found = self._machine.find_link(name)
        if not isinstance(found, Pf):
            raise refuse(errno.ENODEV, f"no PF has the link {name}")
        return found
