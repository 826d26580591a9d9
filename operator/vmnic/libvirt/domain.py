"""A domain's XML, parsed; whatever vmnic does not know stays in it as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

__all__ = ["ALIAS", "Domain", "DomainError", "read_domain"]

ALIAS = "ua-vmnic-"
"""Aliases that begin so name the NIC that a whole PCI function stands for; libvirt keeps aliases that begin with ua-."""
_Element = etree._Element  # noqa: SLF001 - lxml has no public name for its element's class


class DomainError(Exception):
    """This is no XML of a domain; the message names line and remedy."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain."""

    name: str
    tree: etree._ElementTree

    def copied(self) -> Domain:
        """Give a copy that may be changed."""
        return Domain(self.name, copy.deepcopy(self.tree))

    @property
    def root(self) -> etree._Element:
        """The element `domain`."""
        return self.tree.getroot()

    def nics(self) -> Iterator[tuple[str, etree._Element]]:
        """Give each NIC's element with its name: its alias, else its place in the list, as libvirt numbers them.

        A whole function that stands for a NIC keeps that NIC's place, so that the others keep their names.
        """
        number = 0
        for element in self.root.iterfind("devices/*"):
            alias = _attribute(element.find("alias"), "name")
            whole = element.tag == "hostdev" and alias.startswith(ALIAS)
            if element.tag == "interface" or whole:
                yield alias.removeprefix(ALIAS) if whole else alias or f"net{number}", element
                number += 1


def _attribute(element: etree._Element | None, name: str) -> str:
    return element.get(name, "") if element is not None else ""


def read_domain(text: str | bytes) -> Domain:
    """Parse a domain's XML.

    Raises:
        DomainError: it is no XML, or no domain's.
    """
    # Nothing outside the file is ever read.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.ElementTree(etree.fromstring(text.encode() if isinstance(text, str) else text, parser))
    except etree.XMLSyntaxError as error:
        raise DomainError(f"line {error.lineno}: this is no XML: {error.msg}") from error
    root = tree.getroot()
    name = (root.findtext("name") or "").strip()
    if root.tag != "domain" or not name:
        what = f"<{root.tag}> without a <name>" if root.tag == "domain" else f"<{root.tag}>"
        raise DomainError(f"line {root.sourceline}: {what} is no libvirt domain: give what `virsh dumpxml --inactive` prints")
    return Domain(name, tree)
