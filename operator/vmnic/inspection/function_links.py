"""Links of one PCI function, which are its ports and the representors of a NIC in switchdev mode."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..host.ops import LinkInfo

__all__ = [
    "FunctionLinks",
    "describe_learnt_uses",
    "describe_uses",
    "find_function_links",
    "find_unexplained",
    "owners_by_name",
]

_PORT = re.compile(r"p[0-9]{1,5}(s[0-9]{1,5})?", re.ASCII)
"""Names of a port and of a part of a split port, as the kernel gives them (__devlink_port_phys_port_name_get)."""
_REPRESENTOR = re.compile(r"pf[0-9]{1,5}vf([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FunctionLinks:
    """Links of one function in the host's network namespace."""

    ports: tuple[LinkInfo, ...] = ()
    """Its ports. Only old NICs have several of them on one function."""
    representors: tuple[LinkInfo, ...] = ()
    """Links that stand for a VF or for another part of the NIC."""

    @property
    def uplink(self) -> LinkInfo | None:
        """Return the first port, or None if there is none in this namespace."""
        return next(iter(self.ports), None)

    @property
    def all(self) -> tuple[LinkInfo, ...]:
        """Return all links."""
        return (*self.ports, *self.representors)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the ports after the first one, and the alternative names of all ports."""
        further = (link.name for link in self.ports[1:])
        return tuple(dict.fromkeys((*further, *(name for link in self.ports for name in link.alt_names))))

    def representors_of(self, index: int) -> tuple[LinkInfo, ...]:
        """Return the representors of a VF."""
        return tuple(link for link in self.representors if _vf_of(link) == index)

    def representors_beside(self, indexes: Collection[int]) -> tuple[LinkInfo, ...]:
        """Return the representors of none of these VFs, which belong to the function itself."""
        return tuple(link for link in self.representors if _vf_of(link) not in indexes)


def find_function_links(address: str, names: Collection[str], links: Sequence[LinkInfo]) -> FunctionLinks:
    """Find the links of a function.

    Args:
        address: PCI address of the function.
        names: Names of its links in sysfs, because kernels before 5.14 do not name the parent of a link in the dump.
        links: All links of the host's network namespace.
    """
    own = [link for link in links if address == link.pci_address or (link.pci_address is None and link.name in names)]
    indexes = {link.index for link in own}
    # A link on top of another one, such as an IPoIB link with a partition key, is no port.
    bases = [link for link in own if link.lower is None or link.lower == link.index or link.lower not in indexes]
    ports = [link for link in bases if not link.phys_port_name or _PORT.fullmatch(link.phys_port_name)]
    return FunctionLinks(
        ports=tuple(sorted(ports, key=lambda link: (link.dev_port or 0, link.index))),
        representors=tuple(link for link in bases if link not in ports),
    )


def _vf_of(link: LinkInfo) -> int | None:
    found = _REPRESENTOR.fullmatch(link.phys_port_name)
    return int(found[1]) if found is not None else None


def owners_by_name(links: Sequence[LinkInfo]) -> dict[str, str]:
    """Return the PCI address of each link by its names, which is empty for a virtual link."""
    return {name: link.pci_address or "" for link in links for name in (link.name, *link.alt_names)}


def describe_uses(own: Sequence[LinkInfo], links: Sequence[LinkInfo], what: str = "") -> tuple[str, ...]:
    """Describe what the host itself uses links of a function for.

    Args:
        own: The links.
        links: All links of the host's network namespace.
        what: What the links are, for example `representor`. Empty if a single link needs no name.
    """
    place = f"{what} ".lstrip()
    return tuple(f"{use} on {place}{link.name}" if what or len(own) > 1 else use for link in own for use in _uses(link, links))


def _uses(link: LinkInfo, links: Sequence[LinkInfo]) -> Iterator[str]:
    yield from (f"address {address}" for address in link.addresses)
    if link.default_route:
        yield "default route"
    names = {other.index: other.name for other in links}
    if link.master is not None:
        yield f"place in {names.get(link.master, 'an upper device')}"
    yield from (f"{upper.kind or 'upper'} device {upper.name}" for upper in _uppers(link, links))


def _uppers(link: LinkInfo, links: Sequence[LinkInfo]) -> list[LinkInfo]:
    """Return the virtual links on top of a link in this namespace."""
    return [upper for upper in links if upper.lower == link.index and upper.kind]


def describe_learnt_uses(own: Sequence[LinkInfo]) -> tuple[str, ...]:
    """Describe what the kernel configured from router advertisements, as it does on every link that is up."""
    found = []
    for link in own:
        found += [f"address {address}" for address in link.learnt]
        found += ["default route"] if link.learnt_route else []
    return tuple(found)


def find_unexplained(
    own: Sequence[LinkInfo], links: Sequence[LinkInfo], filters: Mapping[str, tuple[str, ...] | str]
) -> tuple[str, ...]:
    """Describe signs that links in other network namespaces are on top of a function's links.

    Args:
        own: Links of the function.
        links: All links of the host's network namespace.
        filters: Unicast filter by the name of the link, or why it could not be read.
    """
    known = {mac.lower() for link in links for mac in (link.mac, link.permanent_mac) if mac}
    return tuple(words for link in own for words in _unexplained(link, links, known, filters.get(link.name, ())))


def _unexplained(
    link: LinkInfo, links: Sequence[LinkInfo], known: Collection[str], found: tuple[str, ...] | str
) -> Iterator[str]:
    if isinstance(found, str):
        yield f"the unicast filter of {link.name} cannot be read: {found}"
        return
    strange = [mac for mac in found if mac.lower() not in known]
    yield from (f"unicast address {mac} on {link.name} (a macvlan of a pod?)" for mac in strange)
    # A bridge makes its ports promiscuous, and the kernel a link whose driver has no filter of its own (__dev_set_rx_mode).
    uppers = [upper for upper in _uppers(link, links) if upper.kind.startswith("macv") or upper.promiscuity]
    if link.promiscuity and link.master is None and not uppers and not found:
        yield f"promiscuous mode of {link.name} (a macvlan of a pod in passthru mode?)"
