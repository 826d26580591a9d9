"""Netlink requests for the mode of an e-switch and for the unicast filter of one link.

pyroute2 can only dump the tables of all links and bridges, and logs three lines for every kernel without devlink.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping

__all__ = ["decode_attributes", "decode_messages", "encode_attributes", "read_eswitch_mode", "read_unicast_filter"]

_ROUTE, _GENERIC = 0, 16
"""NETLINK_ROUTE and NETLINK_GENERIC."""
_REQUEST, _DUMP, _MULTI = 0x1, 0x300, 0x2
"""NLM_F_* of linux/netlink.h."""
_ERROR, _DONE = 2, 3
"""NLMSG_ERROR and NLMSG_DONE."""
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_BITS = 0x3FFF
_RECEIVE_BYTES = 2**18
_ANSWER_S = 4.0

_CONTROL_FAMILY = 16
"""GENL_ID_CTRL of linux/genetlink.h."""
_GENERIC_HEADER = struct.Struct("=BBH")
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_ESWITCH_GET, _BUS_NAME, _DEVICE_NAME, _ESWITCH_MODE = 29, 1, 2, 25
"""DEVLINK_CMD_* and DEVLINK_ATTR_* of linux/devlink.h."""
_MODES = {0: "legacy", 1: "switchdev", 2: "switchdev_inactive"}

_GET_NEIGHBOURS = 30
_LINK_HEADER = struct.Struct("=BxHiII")
"""struct ifinfomsg."""
_NEIGHBOUR_HEADER = struct.Struct("=BxxxiHBB")
"""struct ndmsg."""
_BRIDGE = 7
_OWN, _LINK_ADDRESS, _MAC_BYTES = 0x02, 2, 6
"""NTF_SELF, which is not set for entries of the bridge above the link, and NDA_LLADDR."""


def read_eswitch_mode(pci_address: str) -> str:
    """Return the mode of a PF's e-switch.

    Raises:
        OSError: The kernel refused. ENOENT means that it has no devlink, ENODEV that the device is not registered there, and
            EOPNOTSUPP that its driver has no e-switch.
    """
    family = _ask_family(_CONTROL_FAMILY, _GET_FAMILY, {_FAMILY_NAME: b"devlink\0"}).get(_FAMILY_ID, b"")
    names = {_BUS_NAME: b"pci\0", _DEVICE_NAME: pci_address.encode() + b"\0"}
    mode = _ask_family(_number(family), _ESWITCH_GET, names).get(_ESWITCH_MODE)
    if mode is None:
        raise OSError(errno.EOPNOTSUPP, f"{pci_address} has no mode of an e-switch")
    return _MODES.get(_number(mode), str(_number(mode)))


def _ask_family(family: int, command: int, attributes: Mapping[int, bytes]) -> dict[int, bytes]:
    """Send a request of generic netlink and return the attributes of the reply."""
    body = _GENERIC_HEADER.pack(command, 1, 0) + encode_attributes(attributes)
    reply = next(iter(_ask(_GENERIC, family, _REQUEST, body)), b"")
    return decode_attributes(reply[_GENERIC_HEADER.size :])


def read_unicast_filter(index: int) -> tuple[str, ...]:
    """Return the unicast addresses in the filter of a link.

    Raises:
        OSError: The kernel refused.
    """
    # A dump with this header has the entries of one link, also on kernels before 4.12 (valid_fdb_dump_legacy).
    body = _LINK_HEADER.pack(_BRIDGE, 0, index, 0, 0)
    macs = set()
    for entry in _ask(_ROUTE, _GET_NEIGHBOURS, _REQUEST | _DUMP, body):
        _, link, _, flags, _ = _NEIGHBOUR_HEADER.unpack_from(entry)
        mac = decode_attributes(entry[_NEIGHBOUR_HEADER.size :]).get(_LINK_ADDRESS, b"")
        # The first bit of a group address is set.
        if link == index and flags & _OWN and len(mac) == _MAC_BYTES and not mac[0] & 1:
            macs.add(mac.hex(":"))
    return tuple(sorted(macs))


def _ask(protocol: int, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Send a request and yield the bodies of its replies."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as opened:
        opened.settimeout(_ANSWER_S)
        opened.bind((0, 0))
        opened.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        ended = False
        while not ended:
            ended, bodies = decode_messages(opened.recv(_RECEIVE_BYTES))
            yield from bodies


def decode_messages(received: bytes) -> tuple[bool, list[bytes]]:
    """Return whether no more messages follow, and the bodies of these.

    Raises:
        OSError: The kernel refused the request, or the messages are cut (EBADMSG).
    """
    bodies = []
    ended = False
    while received and not ended:
        if len(received) < _HEADER.size:
            raise OSError(errno.EBADMSG, "a message of netlink is cut")
        length, kind, flags, _, _ = _HEADER.unpack_from(received)
        body, received = received[_HEADER.size : length], received[max((length + 3) & ~3, _HEADER.size) :]
        if kind in (_ERROR, _DONE):
            # A dump ends with its errno too, which older kernels leave out.
            code = -struct.unpack_from("=i", body)[0] if len(body) >= struct.calcsize("=i") else 0
            if code:
                raise OSError(code, os.strerror(code))
            ended = True
        else:
            bodies.append(body)
            ended = not flags & _MULTI
    return ended, bodies


def encode_attributes(attributes: Mapping[int, bytes]) -> bytes:
    """Return attributes in the kernel's form, padded to four bytes."""
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in attributes.items()
    )


def decode_attributes(body: bytes) -> dict[int, bytes]:
    """Return attributes by their type, up to the first one that is cut."""
    found = {}
    while len(body) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body)
        if not _ATTRIBUTE.size <= length <= len(body):
            break
        found[kind & _TYPE_BITS] = body[_ATTRIBUTE.size : length]
        body = body[(length + 3) & ~3 :]
    return found


def _number(value: bytes) -> int:
    """Return a number of 16 bits.

    Raises:
        OSError: The reply has no such number (EBADMSG).
    """
    if len(value) != struct.calcsize("=H"):
        raise OSError(errno.EBADMSG, "a number in the reply of netlink has the wrong size")
    return int(struct.unpack("=H", value)[0])
