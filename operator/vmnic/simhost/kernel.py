"""What the kernel does when its PCI files are written: errno for errno, lock for lock.

Each operation is a generator that yields while the kernel would sleep: the caller steps it again when something has changed.
Sources: drivers/pci/iov.c, drivers/base/bus.c, drivers/pci/pci-driver.c, drivers/vfio, and measurements on igb.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Generator

from .model import DEFAULT_MTU, Machine, Pf, Vf

__all__ = ["Kernel", "Step"]

Step = Generator[None, None, None]
VFIO = "vfio-pci"
_OVERRIDE_BYTES = 4095
"""driver_override takes less than a page (drivers/base/driver.c)."""


def refuse(code: int, text: str = "") -> OSError:
    """Make the kernel's refusal."""
    return OSError(code, text or errno.errorcode[code])


class Kernel:
    """Operations on the PCI functions of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def hold_links(self) -> Step:
        """Hold rtnl, the one lock of all links, for as long as a change takes."""
        while self._machine.links_locked:
            yield
        self._machine.links_locked = True
        try:
            yield from self._take(self._machine.spec.delays.link_s)
        finally:
            self._machine.links_locked = False

    def _take(self, seconds: float) -> Step:
        """Let time pass."""
        end = time.monotonic() + seconds
        while seconds and time.monotonic() < end:
            yield

    def write_num_vfs(self, pf: Pf, text: str) -> Step:
        """`sriov_numvfs`: the checks stand in the kernel's order."""
        count = _parse_u16(text)
        if count > pf.total_vfs:
            raise refuse(errno.ERANGE)
        yield from self._lock(pf)
        try:
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
        """`sriov_numvfs` waits for the device lock even to be read."""
        while pf.locked:
            yield
        return str(pf.num_vfs)

    def rescan(self) -> Step:
        """`/sys/bus/pci/rescan` takes the global lock."""
        while self._machine.rescan_locked:
            yield

    def write_autoprobe(self, pf: Pf, text: str) -> Step:
        """`sriov_drivers_autoprobe` takes a boolean."""
        yield from ()
        word = text.strip().lower()
        if not word or word[:2] not in ("0", "1", "y", "n", "on", "of"):
            raise refuse(errno.EINVAL)
        pf.autoprobe = word[:2] in ("1", "y", "on")

    def write_override(self, function: Pf | Vf, text: str) -> Step:
        """`driver_override`: a newline alone clears it."""
        yield from ()
        if len(text) >= _OVERRIDE_BYTES:
            raise refuse(errno.EINVAL)
        function.override = text.strip()

    def probe(self, address: str) -> Step:
        """`drivers_probe` succeeds also where it does nothing."""
        function = self._function(address)
        if not function.driver and self._may_probe(function):
            yield from self._take(self._machine.spec.delays.probe_s)
            self._attach(function, function.override or self._native_driver(function))

    def bind(self, driver: str, address: str) -> Step:
        """`drivers/NAME/bind`."""
        yield from ()
        function = self._function(address)
        matches = driver == (function.override or self._native_driver(function))
        if not matches or not self._may_probe(function):
            raise refuse(errno.ENODEV)
        if function.driver:
            raise refuse(errno.EBUSY)
        self._attach(function, driver)
        if function.driver != driver:
            raise refuse(errno.EINVAL)

    def unbind(self, driver: str, address: str) -> Step:
        """`drivers/NAME/unbind`; a VF that somebody holds makes the writer wait, a PF's driver takes its VFs with it."""
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
        """Take a NIC out of its slot: its driver goes first, with its VFs."""
        if pf.driver:
            yield from self.unbind(pf.driver, pf.address)
        del self._machine.pfs[pf.address]
        self._machine.tell("remove", pf)

    def add(self, address: str) -> None:
        """Put it back; its driver takes it."""
        pf = self._machine.plug(address)
        self._machine.tell("add", pf)
        self._attach(pf, self._native_driver(pf))

    def load(self, name: str) -> Step:
        """Load a module; a driver takes its functions, and makes the VFs that its options ask for."""
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
        """Unload a driver: its functions lose it, and their VFs go with them. One whose device is open stays."""
        name = name.replace("-", "_")
        if name == "vfio_pci" and any(one.driver == VFIO and one.held for one in self._machine.functions()):
            raise refuse(errno.EBUSY, "Module vfio_pci is in use")
        for function in [one for one in self._machine.functions() if one.driver.replace("-", "_") == name]:
            if self._machine.find(function.address) is not None:
                yield from self.unbind(function.driver, function.address)
        self._machine.modules.discard(name)

    def _lock(self, pf: Pf) -> Step:
        while pf.locked:
            yield
        pf.locked = True

    def _change_vfs(self, pf: Pf, count: int) -> Step:
        """Make or remove all VFs under the global lock; either way the PF's queues start anew, and a link that is up flaps."""
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
                    self._machine.tell("change", vf)
                    if self._may_probe(vf):
                        self._attach(vf, self._native_driver(vf))
                self._machine.tell("change", pf)
            else:
                yield from self._remove_vfs(pf)
            pf.num_vfs = count
            pf.channels = pf.max_channels
            for _ in ("down", "up") if pf.up else ():
                self._machine.tell_link("newlink", pf)
        finally:
            self._machine.rescan_locked = False

    def _remove_vfs(self, pf: Pf) -> Step:
        """VFs go in their order. Of one that is held the driver link goes at once and the rest waits for its holder."""
        while pf.vfs:
            vf = pf.vfs[0]
            yield from self._take(self._machine.spec.delays.vf_s)
            yield from self._release(vf)
            pf.vfs.remove(vf)
            self._machine.tell("remove", vf)

    def _release(self, function: Pf | Vf) -> Step:
        """Take a function's driver away: the link to it goes at once, all else waits for those who hold the function."""
        driven = bool(function.driver)
        self._detach(function)
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
        """A VF of a PF without autoprobe is only probed with an override (pci_device_can_probe)."""
        return isinstance(function, Pf) or bool(function.override) or self._machine.pf_of(function).autoprobe

    def _native_driver(self, function: Pf | Vf) -> str:
        """The driver whose id table has the function."""
        if isinstance(function, Pf):
            return function.profile.driver
        return self._machine.pf_of(function).profile.vf_driver

    def _attach(self, function: Pf | Vf, driver: str) -> None:
        """Let a driver probe a function; one that is not loaded, or fails, leaves it without."""
        if driver == VFIO:
            if "vfio_pci" in self._machine.modules and function.group is not None:
                function.driver = VFIO
                self._machine.tell("bind", function)
            return
        if driver not in self._machine.modules or driver != self._native_driver(function):
            return
        function.driver = driver
        if isinstance(function, Vf):
            self._machine.make_link(self._machine.pf_of(function), function)
        else:
            function.net_name = function.spec.name
        self._machine.tell_link("newlink", function)
        self._machine.tell("bind", function)

    def _detach(self, function: Pf | Vf) -> None:
        function.driver = ""
        function.group_held = False  # Who has it open has nothing any more.
        self._machine.tell_link("dellink", function)
        if isinstance(function, Pf):
            # What its driver makes next is a new link.
            function.up, function.mtu, function.channels = False, DEFAULT_MTU, function.profile.channels
        if function.net_name:
            for upper in [upper for upper in self._machine.uppers if upper.lower == function.net_name]:
                self._machine.uppers.remove(upper)
                self._machine.tell_upper("dellink", upper)
        function.net_name = ""


_NUMBER = re.compile(r"\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\n?")
"""What kstrtou16 takes with base 0."""


def _parse_u16(text: str) -> int:
    """Read a count; sriov_numvfs_store makes every failure EINVAL."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise refuse(errno.EINVAL)
    word = found[1]
    number = int(word, 0 if word[1:2] in ("x", "X") else 8 if word.startswith("0") else 10)
    if number >= 1 << 16:
        raise refuse(errno.EINVAL)
    return number
