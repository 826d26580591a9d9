"""Anonymous copies of records.

Addresses and names are replaced, and values that were equal stay equal. PCI addresses and IDs, drivers, kinds and types of
links, names of ports, and pools in vmnic's own udev rules stay, because decisions depend on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from .record import HostRecord, LinkRecord, RecordedHolder

__all__ = ["anonymise"]

_KEPT_MACS = re.compile(r"(00(:00)+|ff(:ff)+)\Z", re.ASCII)
_WITH_MAC = re.compile(r"(enx|ibx|wlx|wwx)([0-9a-f]{12})", re.ASCII)
"""Names that systemd makes of a MAC address (systemd.net-naming-scheme(7))."""
_KEPT_LABELS: Final = ("kubernetes.io/arch", "kubernetes.io/os")
_MACVTAP: Final = "macvtap.network.kubevirt.io/"
_MACVTAP_DEVICE = re.compile(r"(.+)(Mvp[0-9]{1,9})", re.ASCII)
_OWN_RESOURCES: Final = "vmnic.dev/"
_NO_BOOT: Final = "00000000-0000-0000-0000-000000000000"


def anonymise(record: HostRecord) -> HostRecord:
    """Return a copy of a record in which the same values are replaced by the same values."""
    return _Replacer(record).record()


class _Replacer:
    """Replacements of one record. Each value gets the next number of its sort."""

    def __init__(self, record: HostRecord) -> None:
        self._record = record
        self._made: dict[str, dict[str, str]] = {}
        """Replacements by sort and value."""
        for link in record.links:
            # First, so that other texts that contain a MAC address are recognized.
            for mac in (link.mac, link.permanent_mac, *link.unicast_addresses, *(vf.mac for vf in link.vfs)):
                self._mac(mac or "")

    def record(self) -> HostRecord:
        """Return the copy."""
        record = self._record
        labels = record.metadata.labels
        errors = {self._read_name(read): code for read, code in record.errors.items()}
        return msgspec.structs.replace(
            record,
            metadata=msgspec.structs.replace(
                record.metadata,
                name=self._numbered("node", record.metadata.name),
                labels=None if labels is None else dict(self._label(key, value) for key, value in labels.items()),
            ),
            host=msgspec.structs.replace(record.host, boot_id=_NO_BOOT if record.host.boot_id else record.host.boot_id),
            links=tuple(self._link(link) for link in record.links),
            holders=tuple(self._holder(holder) for holder in record.holders),
            errors=errors,
        )

    def _replaced(self, sort: str, value: str, make: Callable[[int], str]) -> str:
        """Return the replacement of a value, which is the same for the same value."""
        made = self._made.setdefault(sort, {})
        if value not in made:
            made[value] = make(len(made) + 1)
        return made[value]

    def _numbered(self, word: str, value: str) -> str:
        return self._replaced(word, value, lambda number: f"{word}{number}")

    def _mac(self, mac: str) -> str:
        if not mac or _KEPT_MACS.match(mac):
            return mac
        count = mac.count(":") + 1
        return self._replaced("mac", mac, lambda number: _bytes(number, count))

    def _name(self, name: str) -> str:
        return self._numbered("link", name)

    def _alt_name(self, name: str) -> str:
        """Return the replacement of an alternative name, in which a MAC address has its own replacement."""
        found = _WITH_MAC.fullmatch(name.lower())
        digits = found[2] if found is not None else ""
        mac = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
        return f"{found[1]}{self._mac(mac).replace(':', '')}" if found is not None else self._name(name)

    def _ip(self, address: str) -> str:
        host, _, length = address.partition("/")
        if ":" in host:
            made = self._replaced("ipv6", host, lambda number: f"2001:db8::{number:x}")
        else:
            # 198.18.0.0/15 belongs to no host (RFC 2544).
            made = self._replaced("ipv4", host, lambda number: f"198.18.{number // 250 % 250}.{number % 250 + 1}")
        return f"{made}/{length}"

    def _link(self, link: LinkRecord) -> LinkRecord:
        return msgspec.structs.replace(
            link,
            name=self._name(link.name),
            alt_names=tuple(self._alt_name(name) for name in link.alt_names),
            lower=self._name(link.lower) if isinstance(link.lower, str) else link.lower,
            master=self._name(link.master) if isinstance(link.master, str) else link.master,
            mac=self._mac(link.mac) if link.mac is not None else None,
            permanent_mac=self._mac(link.permanent_mac) if link.permanent_mac is not None else None,
            phys_switch_id=self._switch(link.phys_switch_id),
            addresses=tuple(map(self._ip, link.addresses)),
            learned_addresses=tuple(map(self._ip, link.learned_addresses)),
            unicast_addresses=tuple(map(self._mac, link.unicast_addresses)),
            vfs=tuple(msgspec.structs.replace(vf, mac=self._mac(vf.mac) if vf.mac is not None else None) for vf in link.vfs),
        )

    def _switch(self, text: str) -> str:
        """Return the replacement of a switch's ID, which many drivers derive from a MAC address."""
        return self._replaced("switch", text, lambda number: f"{number:012x}") if text else text

    def _label(self, key: str, value: str) -> tuple[str, str]:
        return (key, value) if key in _KEPT_LABELS else (self._numbered("label", key), self._numbered("value", value))

    def _holder(self, holder: RecordedHolder) -> RecordedHolder:
        return msgspec.structs.replace(
            holder, device=self._device(holder.device), resource=self._resource(holder.resource), by=self._by(holder.by)
        )

    def _device(self, device: str) -> str:
        found = _MACVTAP_DEVICE.fullmatch(device)
        return f"{self._name(found[1])}{found[2]}" if found is not None else device

    def _resource(self, resource: str) -> str:
        if resource.startswith(_MACVTAP):
            return _MACVTAP + self._name(resource.removeprefix(_MACVTAP))
        prefix = _OWN_RESOURCES if resource.startswith(_OWN_RESOURCES) else "example.com/"
        return prefix + self._numbered("resource", resource) if resource else ""

    def _by(self, by: str) -> str:
        word, _, name = by.partition(" ")
        namespace, slash, pod = name.partition("/")
        if word == "pod" and slash:
            return f"pod {self._numbered('namespace', namespace)}/{self._numbered('pod', f'{namespace}/{pod}')}"
        return f"domain {self._numbered('domain', name)}" if word == "domain" else self._numbered("holder", by)

    def _read_name(self, read: str) -> str:
        what, _, which = read.partition(":")
        return f"{what}:{self._name(which)}" if what in ("vfs", "unicast") else read


def _bytes(number: int, count: int) -> str:
    """Return a locally administered address of some bytes that contains a number."""
    digits = f"{number:0{2 * (count - 1)}x}" if count > 1 else ""
    return ":".join(("02", *(digits[at : at + 2] for at in range(0, len(digits), 2))))
