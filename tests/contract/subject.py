"""Interface of the hosts that the contract tests, and helpers for its cases."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytest

from tests.harness.api import wait_for
from vmnic.host.events import HostEvent
from vmnic.host.ops import (
    Channels,
    LinkInfo,
    ListDir,
    Op,
    ReadChannels,
    ReadFile,
    ReadLink,
    ReadLinks,
    ReadVfs,
    SetLink,
    SetVf,
    VfInfo,
    WriteFile,
)

__all__ = ["DEVICES", "MAC", "Contract", "Host", "Pending", "Subject"]

DEVICES = "/sys/bus/pci/devices"
MAC = "02:00:00:00:00:a0"


class Pending(Protocol):
    """An operation that was started and may block."""

    def done(self) -> bool: ...

    def result(self, timeout_s: float) -> Any: ...


class Subject(Protocol):
    """A host with 82576 PFs without VFs, whose links are down."""

    pf: str
    other_pf: str
    crowded_pf: str
    """A PF that shares its IOMMU group with the port above it, and is on NUMA node 1."""

    def perform(self, op: Op) -> Any: ...

    def start(self, op: Op) -> Pending: ...

    def control(self, command: Mapping[str, Any]) -> Any:
        """Execute a command that is no operation, in the form that the simulated host defines."""
        ...

    def heard(self) -> list[HostEvent]:
        """Return the events since the last call. The first call starts to listen."""
        ...

    def settled(self, pending: Pending) -> bool:
        """Return whether an operation ended within the time that the kernel needs to answer."""
        ...


class Host:
    """Helpers for the cases."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.path = f"{DEVICES}/{subject.pf}"
        self.other = f"{DEVICES}/{subject.other_pf}"

    def read(self, name: str) -> str:
        return self.get(f"{self.path}/{name}")

    def get(self, path: str) -> str:
        return self.subject.perform(ReadFile(path))

    def write(self, name: str, text: object) -> str:
        """Write a file of the PF and return `OK` or the errno's name."""
        return self.put(f"{self.path}/{name}", text)

    def put(self, path: str, text: object) -> str:
        return self.try_(WriteFile(path, str(text)))

    def try_(self, op: Op) -> str:
        return self._answer(lambda: self.subject.perform(op))

    def control(self, command: str, argument: object) -> str:
        """Execute a command that is no operation and return `OK` or the errno's name."""
        return self._answer(lambda: self.subject.control({command: argument}))

    def _answer(self, call: Callable[[], object]) -> str:
        try:
            call()
        except OSError as error:
            # Linux has one number for two names. The kernel's sources write EOPNOTSUPP.
            return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno or 0]
        return "OK"

    def vfs(self, count: int, *, autoprobe: bool = False) -> list[str]:
        """Create VFs and return their addresses."""
        assert self.write("sriov_drivers_autoprobe", int(autoprobe)) == "OK"
        assert self.write("sriov_numvfs", count) == "OK"
        return [self.link(f"{self.path}/virtfn{index}") for index in range(count)]

    def link(self, path: str) -> str:
        return self.subject.perform(ReadLink(path)).rsplit("/", 1)[-1]

    def driver(self, address: str) -> str:
        try:
            return self.link(f"{DEVICES}/{address}/driver")
        except FileNotFoundError:
            return ""

    def override(self, address: str, driver: str) -> str:
        return self.put(f"{DEVICES}/{address}/driver_override", driver)

    def probe(self, address: str) -> str:
        return self.put("/sys/bus/pci/drivers_probe", address)

    def bind(self, address: str, driver: str = "vfio-pci") -> None:
        assert self.override(address, driver) == "OK"
        assert self.probe(address) == "OK"

    def unbind(self, address: str, driver: str) -> str:
        return self.put(f"/sys/bus/pci/drivers/{driver}/unbind", address)

    def held_vfs(self, count: int, held: int) -> list[str]:
        """Create VFs, bind one of them to vfio-pci and hold it."""
        vfs = self.vfs(count)
        self.bind(vfs[held])
        self.hold(vfs[held])
        return vfs

    def hold(self, vf: str) -> None:
        self.subject.control({"hold": vf})

    def release(self, vf: str) -> None:
        self.subject.control({"release": vf})

    def start(self, path: str, text: str | None = None) -> Pending:
        """Start a write to a file, or a read."""
        return self.subject.start(ReadFile(path) if text is None else WriteFile(path, text))

    @property
    def name(self) -> str:
        return self.names(self.subject.pf)[0]

    def names(self, address: str) -> list[str]:
        """Return the links of a function in the host's namespace."""
        try:
            return list(self.subject.perform(ListDir(f"{DEVICES}/{address}/net")))
        except FileNotFoundError:
            return []

    def info(self) -> LinkInfo:
        return self.info_of(self.name)

    def info_of(self, name: str) -> LinkInfo:
        return next(link for link in self.subject.perform(ReadLinks()) if link.name == name)

    def vf_infos(self) -> tuple[VfInfo, ...]:
        """Return the attributes of the PF's VFs."""
        return self.subject.perform(ReadVfs(self.name))

    def has_link(self, name: str) -> bool:
        return any(link.name == name for link in self.subject.perform(ReadLinks()))

    def channels(self) -> Channels:
        return self.subject.perform(ReadChannels(self.name))

    def set_vf(self, vf: int, **attributes: Any) -> str:
        return self.try_(SetVf(name=self.name, vf=vf, **attributes))

    def exists(self, path: str) -> bool:
        return self.try_(ListDir(path)) == "OK"

    def bring_up(self) -> None:
        """Bring the PF's link up and wait until it has a carrier."""
        name = self.name
        self.subject.perform(SetLink(name=name, up=True))
        wait_for("the PF has a carrier", lambda: self.get(f"/sys/class/net/{name}/carrier") == "1")


class Contract:
    """Base of the suites. The subject's reset removes what a case created."""

    @pytest.fixture
    def host(self, subject: Subject) -> Host:
        return Host(subject)
