"""NetworkManager profiles, and whether one of them creates VFs of a link.

nmstate writes such profiles too.

A profile applies to every link that none of its conditions excludes. See nm-settings-keyfile(5), and nm-settings(5) for
`connection.interface-name`, `ethernet.mac-address` and `match`. An unclear owner counts as an owner, so that vmnic never takes
over VFs of another program. A condition that is not understood here excludes no link, and a profile that cannot be read may
apply to any link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..host.ops import ListDir, ReadFile
from .errno_hints import errno_name
from .keyfile import Keyfile, KeyfileError, parse_keyfile
from .sysfs import SysfsReader, is_absent

__all__ = ["Port", "Profiles", "find_manager", "read_profiles"]

_DIRECTORIES = ("/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections")
_MOST_PROFILES = 512
_BATCH = 16
_PROFILE_CHARS = 65_536
"""A profile has some hundred bytes."""
_ETHERNET = ("ethernet", "802-3-ethernet")
"""Two names of one section."""
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_NOT_READ = ("\\", "[:", "[.", "[=", "[^")
"""Parts of patterns that fnmatch(3) supports and Python's fnmatch does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Properties by which profiles select links."""

    name: str
    mac: str
    """Permanent MAC address. Empty if unknown."""
    pci_address: str
    driver: str


@dataclass(frozen=True, slots=True)
class Profiles:
    """The profiles of a node."""

    making: Mapping[str, Keyfile] = field(default_factory=dict)
    """Profiles with SR-IOV settings, by path."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why a profile or a directory of profiles could not be read, by path."""


async def read_profiles(reader: SysfsReader) -> Profiles:
    """Read all profiles. One that cannot be read is recorded, and PFs are still read."""
    listed = await reader.attempt([ListDir(directory) for directory in _DIRECTORIES])
    paths: list[str] = []
    unreadable: dict[str, str] = {}
    for directory, names in zip(_DIRECTORIES, listed, strict=True):
        found = [f"{directory}/{name}" for name in names if _is_profile(name)] if isinstance(names, tuple) else []
        paths += found[:_MOST_PROFILES]
        if isinstance(names, OSError) and not is_absent(names):
            unreadable[directory] = errno_name(names)
        # A profile beyond the limit may create VFs of any link, as one that cannot be read.
        elif len(found) > _MOST_PROFILES:
            unreadable[directory] = f"more than {_MOST_PROFILES} profiles"
    making: dict[str, Keyfile] = {}
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        for path, text in zip(batch, await reader.attempt([ReadFile(path) for path in batch]), strict=True):
            _sort(path, text, making, unreadable)
    return Profiles(making=making, unreadable=unreadable)


def _is_profile(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".nmconnection")


def _sort(path: str, text: object, making: dict[str, Keyfile], unreadable: dict[str, str]) -> None:
    """Add a profile to those with SR-IOV settings or to the unreadable ones.

    A profile that has disappeared, or creates no VFs, is ignored.
    """
    if isinstance(text, OSError):
        if not is_absent(text):
            unreadable[path] = errno_name(text)
        return
    try:
        profile = parse_keyfile(str(text), most_chars=_PROFILE_CHARS)
    except KeyfileError as error:
        unreadable[path] = str(error)
        return
    if profile.has("sriov"):
        making[path] = profile


def find_manager(profiles: Profiles, port: Port) -> tuple[str, str]:
    """Find NetworkManager's claim to a link.

    Returns:
        The profile that creates VFs of it, and the first unreadable one, which may do so, with the reason. Each is empty if
            none.
    """
    owner = next((path for path, profile in profiles.making.items() if _applies(profile, port)), "")
    unknown = next((f"{path} cannot be read ({why})" for path, why in sorted(profiles.unreadable.items())), "")
    return owner, unknown


def _applies(profile: Keyfile, port: Port) -> bool:
    name = profile.get("connection", "interface-name")
    return (
        # Escapes are not decoded here, so a name with one may be any link's.
        (name in ("", port.name) or "\\" in name)
        and not _is_of_another_mac(profile, port.mac.lower())
        and _matches(_elements(profile, "match", "interface-name"), port.name)
        and _matches(_elements(profile, "match", "driver"), port.driver)
        and _matches(map(_below_pci, _elements(profile, "match", "path")), f"pci-{port.pci_address}")
    )


def _is_of_another_mac(profile: Keyfile, mac: str) -> bool:
    """Return whether a profile selects another MAC address or excludes this one.

    NetworkManager compares permanent addresses, so the link's present address does not matter.
    """
    if not mac:
        return False
    wanted = [profile.get(section, "mac-address").lower() for section in _ETHERNET]
    denied = [
        one.lower()
        for section in _ETHERNET
        for key in ("mac-address-blacklist", "mac-address-denylist")
        for one in _elements(profile, section, key)
    ]
    # A value that is no address, such as a word, excludes no link.
    return mac in denied or any(one != mac and _MAC.fullmatch(one) for one in wanted)


def _elements(profile: Keyfile, section: str, key: str) -> list[str]:
    return [one for one in profile.get(section, key).split(";") if one]


def _below_pci(element: str) -> str:
    """Remove the part of a path pattern (udev's ID_PATH) before the PCI bus, which is unknown here."""
    start = element.rfind("pci-")
    specials = element[: len(element) - len(element.lstrip("|&!"))]
    return element if start < 0 or "!" in specials else specials + element[start:]


def _matches(elements: Iterable[str], text: str) -> bool:
    """Match as NetworkManager does.

    All mandatory patterns ("&", or "!" alone) must match, and one of the others if there are any.
    """
    mandatory: list[bool] = []
    optional: list[bool] = []
    for element in elements:
        pattern = element.removeprefix("|").removeprefix("&")
        wanted = not pattern.startswith("!")
        hits = any(part in pattern for part in _NOT_READ) or fnmatchcase(text, pattern.removeprefix("!")) == wanted
        (mandatory if element[0] in "&!" else optional).append(hits)
    return all(mandatory) and (any(optional) or not optional)
