"""Parser of a domain's XML. Content that vmnic does not know stays unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

__all__ = ["ALIAS", "MOST_CHARS", "Domain", "DomainError", "read_domain", "read_tree", "to_domain"]

ALIAS = "ua-vmnic-"
"""Prefix of the alias that names the NIC which a whole PCI function replaces. libvirt keeps aliases that begin with `ua-`."""
MOST_CHARS = 2**19
"""Maximum number of characters of a domain's XML. One with a hundred disks has a fifth of that."""
_MOST = {"<": 20_000, "=": 20_000, "xmlns": 256}
"""Maximum numbers of tags, attributes and namespaces. libxml2's work grows with the product of some of them."""
_NAME_CHARS = 255
_NO_DOMAIN = "give what `virsh dumpxml --inactive` prints"
_DECLARATION = re.compile(r"<\?xml\s[^>]{0,200}\?>\s*")
_Element = etree._Element  # noqa: SLF001 - lxml has no public name for its element's class


class DomainError(ValueError):
    """The text is not the XML of a domain. The message names domain, line and remedy."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain."""

    name: str
    text: str
    """Its original XML."""
    tree: etree._ElementTree

    def copied(self) -> Domain:
        """Return a copy that may be changed."""
        # Parsing again takes linear time. A deep copy takes quadratic time if many elements declare namespaces.
        return Domain(self.name, self.text, _parse(self.text))

    @property
    def declaration(self) -> str:
        """Return the XML declaration with the blanks after it, or an empty string."""
        found = _DECLARATION.match(self.text)
        return found[0] if found else ""

    @property
    def root(self) -> etree._Element:
        """Return the element `domain`."""
        return self.tree.getroot()

    def nics(self) -> Iterator[tuple[str, etree._Element]]:
        """Yield the name and the element of each NIC.

        The name is the alias, or else the position in the list, as libvirt numbers them. A whole function that replaces a NIC
        keeps its
        position, so that the other NICs keep their names.
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


def read_tree(text: str) -> etree._ElementTree:
    """Parse XML of libvirt.

    Raises:
        DomainError: it is not XML, or exceeds a bound.
    """
    _check_bounds(text)
    return _parse(text)


def read_domain(text: str | bytes) -> Domain:
    """Parse a domain's XML.

    Raises:
        DomainError: it is not XML, not a domain, or exceeds a bound.
    """
    text = text.decode() if isinstance(text, bytes) else text
    return to_domain(text, read_tree(text))


def to_domain(text: str, tree: etree._ElementTree) -> Domain:
    """Return the domain of a parsed text.

    Raises:
        DomainError: it is no domain.
    """
    root = tree.getroot()
    name = (root.findtext("name") or "").strip()
    if root.tag != "domain" or not name:
        what = f"<{root.tag}> without a <name>" if root.tag == "domain" else f"<{root.tag}>"
        raise DomainError(f"line {root.sourceline}: {what} is not a libvirt domain: {_NO_DOMAIN}")
    if len(name) > _NAME_CHARS:
        raise DomainError(f"line {root.sourceline}: <name> has more than {_NAME_CHARS} characters: {_NO_DOMAIN}")
    return Domain(name, text, tree)


def _check_bounds(text: str) -> None:
    """Check bounds that limit the parser's work before it starts."""
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
    """Parse XML without access to anything else.

    No entity, file or network is used, and the encoding that the text declares is ignored.
    """
    # CDATA is kept, because a domain that changes keeps all content that vmnic does not know.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False, encoding="utf-8"
    )
    try:
        return etree.ElementTree(etree.fromstring(text.encode("utf-8", "replace"), parser))
    except etree.XMLSyntaxError as error:
        raise DomainError(f"line {error.lineno}: not valid XML: {error.msg}") from error
