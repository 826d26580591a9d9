"""A domain's XML, parsed; whatever vmnic does not know stays in it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

__all__ = ["ALIAS", "MOST_CHARS", "Domain", "DomainError", "read_domain"]

ALIAS = "ua-vmnic-"
"""Aliases that begin so name the NIC that a whole PCI function stands for; libvirt keeps aliases that begin with ua-."""
MOST_CHARS = 2**19
"""Of a domain's XML; one with a hundred disks has a fifth of that."""
_MOST = {"<": 20_000, "=": 20_000, "xmlns": 256}
"""Tags, attributes and namespaces: libxml2's work grows with the product of some of them."""
_NAME_CHARS = 255
_NO_DOMAIN = "give what `virsh dumpxml --inactive` prints"
_DECLARATION = re.compile(r"<\?xml\s[^>]{0,200}\?>\s*")
_Element = etree._Element  # noqa: SLF001 - lxml has no public name for its element's class


class DomainError(ValueError):
    """This is no XML of a domain; the message names domain, line and remedy."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain."""

    name: str
    text: str
    """Its XML as it was given."""
    tree: etree._ElementTree

    def copied(self) -> Domain:
        """Give a copy that may be changed."""
        return Domain(self.name, self.text, _parse(self.text))

    @property
    def declaration(self) -> str:
        """The XML declaration with the blanks behind it; empty: there is none."""
        found = _DECLARATION.match(self.text)
        return found[0] if found else ""

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
        DomainError: it is no XML, no domain's, or beyond a bound.
    """
    text = text.decode() if isinstance(text, bytes) else text
    _check_bounds(text)
    tree = _parse(text)
    root = tree.getroot()
    name = (root.findtext("name") or "").strip()
    if root.tag != "domain" or not name:
        what = f"<{root.tag}> without a <name>" if root.tag == "domain" else f"<{root.tag}>"
        raise DomainError(f"line {root.sourceline}: {what} is no libvirt domain: {_NO_DOMAIN}")
    if len(name) > _NAME_CHARS:
        raise DomainError(f"line {root.sourceline}: <name> has more than {_NAME_CHARS} characters: {_NO_DOMAIN}")
    return Domain(name, text, tree)


def _check_bounds(text: str) -> None:
    """Bound the work of the parser before it begins."""
    if len(text) > MOST_CHARS:
        raise DomainError(f"XML of more than {MOST_CHARS} characters is not read: {_NO_DOMAIN}")
    for part, most in _MOST.items():
        if text.count(part) > most:
            raise DomainError(f"XML in which {part} occurs more than {most} times is not read: {_NO_DOMAIN}")
    for declaration in ("<!DOCTYPE", "<!ENTITY"):
        if declaration in text:
            line = text.count("\n", 0, text.index(declaration)) + 1
            raise DomainError(f"line {line}: {declaration} is not read, since no domain has one: remove it")


def _parse(text: str) -> etree._ElementTree:
    """Parse XML within the text alone: no entity, no file, no network; the text's own word on its encoding is not used."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False, encoding="utf-8"
    )
    try:
        return etree.ElementTree(etree.fromstring(text.encode("utf-8", "replace"), parser))
    except etree.XMLSyntaxError as error:
        raise DomainError(f"line {error.lineno}: this is no XML: {error.msg}") from error
