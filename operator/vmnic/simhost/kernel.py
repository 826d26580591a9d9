"""Behavior of the kernel when its PCI files are written, with the same errors and locks.

Each operation is a generator that yields where the kernel would sleep. The caller steps it again after a change.
Sources: drivers/pci/iov.c, drivers/base/bus.c, drivers/pci/pci-driver.c, drivers/vfio, and measurements on igb.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Generator

from .model import DEFAULT_MTU, Machine, Pf, Vf, make_ports, representor_name

__all__ = ["Kernel", "Step"]

Step = Generator[None, None, None]
VFIO = "vfio-pci"
_OVERRIDE_BYTES = 4095
"""driver_override accepts less than a page (drivers/base/driver.c)."""


def refuse(code: int, text: str = "") -> OSError:
    """Return the error with which the kernel refuses."""
    return OSError(code, text or errno.errorcode[code])


class Kernel:
    """Operations on the PCI functions of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def hold_links(self) -> Step:
        """Hold rtnl, the lock of all links, for the time that a change takes."""
        while self._machine.links_locked:
            yield
        self._machine.links_locked = True
        try:
            yield from self._take(self._machine.spec.delays.link_s)
        finally:
            self._machine.links_locked = False

    def _take(self, seconds: float) -> Step:
        """Wait until a time has passed."""
        end = time.monotonic() + seconds
        while seconds and time.monotonic() < end:
            yield

    def write_num_vfs(self, pf: Pf, text: str) -> Step:
        """Write `sriov_numvfs`, with the checks in the kernel's order."""
        count = _parse_u16(text)
        if count > pf.total_vfs:
            raise refuse(errno.ERANGE)
        # The kernel checks the bound before it takes the lock, so a count beyond it is refused even while another write waits.
        yield from self._lock(pf)
        try:
            # The same count succeeds even without a driver: the kernel compares before it looks for one.
            if count == pf.num_vfs:
                return
            if not pf.driver:
                raise refuse(errno.ENOENT, "no driver bound to device; cannot configure SR-IOV")
            if not pf.profile.sysfs_vfs or pf.driver == VFIO:
                raise refuse(errno.ENOENT, "driver does not support SR-IOV configuration via sysfs")
            if count and pf.spec.no_vf_space:
                raise refuse(errno.ENOMEM, "not enough MMIO resources for SR-IOV")
            if count and pf.num_vfs:
                raise refuse(errno.EBUSY, f"{pf.num_vfs} VFs already enabled. Disable before enabling {count} VFs")
            yield from self._change_vfs(pf, count)
        finally:
            pf.locked = False

    def read_num_vfs(self, pf: Pf) -> Generator[None, None, str]:
        """Read `sriov_numvfs`, which waits for the device lock even to be read."""
        while pf.locked:
            yield
        return str(pf.num_vfs)

    def rescan(self) -> Step:
        """Write `/sys/bus/pci/rescan`, which takes the global lock."""
        while self._machine.rescan_locked:
            yield

    def write_autoprobe(self, pf: Pf, text: str) -> Step:
        """Write `sriov_drivers_autoprobe`, which accepts a boolean."""
        yield from ()
        word = text.strip().lower()
        if not word or word[:2] not in ("0", "1", "y", "n", "on", "of"):
            raise refuse(errno.EINVAL)
        pf.autoprobe = word[:2] in ("1", "y", "on")

    def write_override(self, function: Pf | Vf, text: str) -> Step:
        """Write `driver_override`, where a single newline clears it."""
        yield from ()
        if len(text) >= _OVERRIDE_BYTES:
            raise refuse(errno.EINVAL)
        function.override = text.strip()

    def probe(self, address: str) -> Step:
        """Write `drivers_probe`, which succeeds even if it does nothing."""
        function = self._function(address)
        if not function.driver and self._may_probe(function):
            yield from self._take(self._machine.spec.delays.probe_s)
            self._attach(function, function.override or self._native_driver(function))

    def bind(self, driver: str, address: str) -> Step:
        """Write `drivers/NAME/bind`."""
        yield from ()
        function = self._function(address)
        # An override excludes every other driver, also the one whose ID table has the function.
        matches = driver == (function.override or self._native_driver(function))
        if not matches or not self._may_probe(function):
            raise refuse(errno.ENODEV)
        if function.driver:
            raise refuse(errno.EBUSY)
        self._attach(function, driver)
        # vfio-pci fails to probe a function without an IOMMU group, and its EINVAL reaches the writer.
        if function.driver != driver:
            raise refuse(errno.EINVAL)

    def unbind(self, driver: str, address: str) -> Step:
        """Write `drivers/NAME/unbind`.

        The writer waits while a process holds the VF. The driver of a PF removes its VFs too.
        """
        function = self._machine.find(address.strip())
        if function is None or function.driver != driver:
            raise refuse(errno.ENODEV)
        if isinstance(function, Pf):
            yield from self._lock(function)
            function.leaving = True
            try:
                if function.num_vfs:
                    yield from self._change_vfs(function, 0)
                yield from self._release(function)
            finally:
                function.locked = function.leaving = False
            return
        yield from self._release(function)

    def remove(self, pf: Pf) -> Step:
        """Remove a NIC from its slot, after its driver and its VFs."""
        if pf.driver:
            yield from self.unbind(pf.driver, pf.address)
        del self._machine.pfs[pf.address]
        self._machine.tell("remove", pf)

    def add(self, address: str) -> None:
        """Insert a NIC again, which its driver binds."""
        pf = self._machine.plug(address)
        self._machine.tell("add", pf)
        self._attach(pf, self._native_driver(pf))

    def load(self, name: str) -> Step:
        """Load a module.

        A driver binds its functions and creates the VFs that its options ask for.
        """
        yield from ()
        name = name.replace("-", "_")
        machine = self._machine
        if name in machine.modules:
            return
        if name in machine.spec.refused_modules:
            raise refuse(errno.EKEYREJECTED, f"could not insert '{name}': Key was rejected by service")
        if name not in (*machine.spec.modules, *machine.spec.available_modules):
            raise refuse(errno.ENOENT, f"module {name} not found")
        machine.modules.add(name)
        for function in list(machine.functions()):
            if not function.driver and self._native_driver(function) == name and self._may_probe(function):
                self._attach(function, name)
        machine.apply_module_options(name)

    def unload(self, name: str) -> Step:
        """Remove a driver from the kernel, which unbinds its functions and removes their VFs.

        vfio_pci stays loaded while a device is open.
        """
        name = name.replace("-", "_")
        if name in self._machine.spec.built_in_modules:
            raise refuse(errno.EIO, f"Module {name} is builtin")
        if name == "vfio_pci" and any(one.driver == VFIO and one.held for one in self._machine.functions()):
            raise refuse(errno.EBUSY, "Module vfio_pci is in use")
        # A copy: unbinding a PF removes its VFs while this loop runs.
        for function in [one for one in self._machine.functions() if one.driver.replace("-", "_") == name]:
            if self._machine.find(function.address) is not None:
                yield from self.unbind(function.driver, function.address)
        self._machine.modules.discard(name)

    def _lock(self, pf: Pf) -> Step:
        while pf.locked:
            yield
        pf.locked = True

    def _change_vfs(self, pf: Pf, count: int) -> Step:
        """Create or remove all VFs under the global lock.

        Either resets the PF's queues, and makes a link that is up go down and up again.
        """
        while self._machine.rescan_locked:
            yield
        self._machine.rescan_locked = True
        try:
            if count:
                for _ in range(count):
                    yield from self._take(self._machine.spec.delays.vf_s)
                    vf = self._machine.make_vf(pf)
                    pf.vfs.append(vf)
                    self._machine.tell("add", vf)
                    # `pci_iov_add_virtfn` announces the links between PF and VF, and `sriov_enable` a change of the PF.
                    self._machine.tell("change", vf)
                    if self._may_probe(vf):
                        self._attach(vf, self._native_driver(vf))
                self._machine.tell("change", pf)
            else:
                yield from self._remove_vfs(pf)
            # The kernel changes the number last, when all VFs have come or gone.
            pf.num_vfs = count
            pf.channels = pf.max_channels
            for _ in ("down", "up") if pf.up else ():
                self._machine.tell_link("newlink", pf)
        finally:
            self._machine.rescan_locked = False

    def _remove_vfs(self, pf: Pf) -> Step:
        """Remove VFs in their order.

        The driver link of a held VF disappears at once, the rest waits for its holder.
        """
        while pf.vfs:
            vf = pf.vfs[0]
            yield from self._take(self._machine.spec.delays.vf_s)
            yield from self._release(vf)
            pf.vfs.remove(vf)
            representor = representor_name(pf, vf.index)
            self._remove_uppers(representor)
            pf.ports = [port for port in pf.ports if port.name != representor]
            self._machine.tell("remove", vf)

    def _release(self, function: Pf | Vf) -> Step:
        """Detach a function from its driver.

        The link to the driver disappears at once, the rest waits for the function's holders.
        """
        driven = bool(function.driver)
        self._detach(function)
        # vfio-pci waits here for the process that has the device open, and the writer keeps its locks meanwhile.
        while function.held:
            yield
        if driven:
            self._machine.tell("unbind", function)

    def _function(self, address: str) -> Pf | Vf:
        function = self._machine.find(address.strip())
        if function is None:
            raise refuse(errno.ENODEV)
        return function

    def _may_probe(self, function: Pf | Vf) -> bool:
        """Return whether a driver may probe a function.

        A VF of a PF without autoprobe is probed only with an override (pci_device_can_probe).
        """
        return isinstance(function, Pf) or bool(function.override) or self._machine.pf_of(function).autoprobe

    def _native_driver(self, function: Pf | Vf) -> str:
        """Return the driver whose ID table contains the function."""
        if isinstance(function, Pf):
            return function.profile.driver
        return self._machine.pf_of(function).profile.vf_driver

    def _attach(self, function: Pf | Vf, driver: str) -> None:
        """Let a driver probe a function, which stays unbound if the driver is not loaded or fails."""
        if driver == VFIO:
            if "vfio_pci" in self._machine.modules and function.group is not None:
                function.driver = VFIO
                self._machine.tell("bind", function)
            return
        # An unknown driver in an override is no error: the probe finds nothing and succeeds.
        if driver not in self._machine.modules or driver != self._native_driver(function):
            return
        function.driver = driver
        if isinstance(function, Vf):
            self._machine.make_link(self._machine.pf_of(function), function)
        else:
            function.net_name, function.ports = function.spec.name, make_ports(function.spec)
        self._machine.tell_link("newlink", function)
        self._machine.tell("bind", function)

    def _detach(self, function: Pf | Vf) -> None:
        function.driver = ""
        function.group_held = False  # The open group has no devices any more.
        self._machine.tell_link("dellink", function)
        if isinstance(function, Pf):
            # The driver creates a new link the next time.
            function.up, function.mtu, function.channels = False, DEFAULT_MTU, function.profile.channels
            function.unicast.clear()
            function.promiscuous = False
            for port in function.ports:
                self._remove_uppers(port.name)
            function.ports = []
        else:
            function.up = False
        if function.net_name:
            self._remove_uppers(function.net_name)
        function.net_name = ""

    def _remove_uppers(self, lower: str) -> None:
        """Remove the virtual links on top of a link (macvlan_device_event).

        Those in other network namespaces are among them.
        """
        for upper in [upper for upper in self._machine.uppers if upper.lower == lower]:
            self._machine.uppers.remove(upper)
            if not upper.moved:
                self._machine.tell_upper("dellink", upper)


_NUMBER = re.compile(r"\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\n?")
"""Numbers that kstrtou16 accepts with base 0."""


def _parse_u16(text: str) -> int:
    """Parse a count, where every failure is EINVAL as in sriov_numvfs_store."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise refuse(errno.EINVAL)
    word = found[1]
    number = int(word, 0 if word[1:2] in ("x", "X") else 8 if word.startswith("0") else 10)
    if number >= 1 << 16:
        raise refuse(errno.EINVAL)
    return number
