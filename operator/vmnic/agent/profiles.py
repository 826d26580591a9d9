"""NetworkManager's profiles: whether one makes VFs of a link. nmstate writes such profiles, too.

A profile applies to every link that none of its conditions rules out; see nm-settings-keyfile(5), and nm-settings(5) for
`connection.interface-name`, `ethernet.mac-address` and `match`. Who owns VFs is never guessed in our favour: what is not
understood here rules nothing out.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["Port", "configures_sriov"]

_ETHERNET = ("ethernet", "802-3-ethernet")
"""Two names of one section."""
_NOT_READ = ("\\", "[:", "[.", "[=", "[^")
"""Parts of patterns that fnmatch(3) has and Python's has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What profiles tell links apart by."""

    name: str
    mac: str
    """Its permanent address; empty: it is not known."""
    pci_address: str
    driver: str


def configures_sriov(profile: str, port: Port) -> bool:
    """Tell whether a profile has SR-IOV settings and may apply to a link."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string("\n".join(line.strip() for line in profile.splitlines()))
    except configparser.Error:
        return False
    name = parser.get("connection", "interface-name", fallback="")
    return (
        parser.has_section("sriov")
        and name in ("", port.name)
        and not _is_of_another_mac(parser, port.mac.lower())
        and _matches(_elements(parser, "match", "interface-name"), port.name)
        and _matches(_elements(parser, "match", "driver"), port.driver)
        and _matches(map(_below_pci, _elements(parser, "match", "path")), f"pci-{port.pci_address}")
    )


def _is_of_another_mac(parser: configparser.RawConfigParser, mac: str) -> bool:
    """NetworkManager compares permanent addresses, so one that a link was given since tells nothing."""
    if not mac:
        return False
    wanted = [parser.get(section, "mac-address", fallback="").lower() for section in _ETHERNET]
    denied = [
        one.lower()
        for section in _ETHERNET
        for key in ("mac-address-blacklist", "mac-address-denylist")
        for one in _elements(parser, section, key)
    ]
    return mac in denied or any(one not in ("", mac) for one in wanted)


def _elements(parser: configparser.RawConfigParser, section: str, key: str) -> list[str]:
    return [one for one in parser.get(section, key, fallback="").split(";") if one]


def _below_pci(element: str) -> str:
    """Leave out what a path (udev's ID_PATH) says of the way to the PCI bus: it is not known here."""
    start = element.rfind("pci-")
    specials = element[: len(element) - len(element.lstrip("|&!"))]
    return element if start < 0 or "!" in specials else specials + element[start:]


def _matches(elements: Iterable[str], text: str) -> bool:
    """Match as NetworkManager does: all mandatory patterns ("&", or "!" alone), and one of the others if there are any."""
    mandatory: list[bool] = []
    optional: list[bool] = []
    for element in elements:
        pattern = element.removeprefix("|").removeprefix("&")
        wanted = not pattern.startswith("!")
        hits = any(part in pattern for part in _NOT_READ) or fnmatchcase(text, pattern.removeprefix("!")) == wanted
        (mandatory if element[0] in "&!" else optional).append(hits)
    return all(mandatory) and (any(optional) or not optional)
