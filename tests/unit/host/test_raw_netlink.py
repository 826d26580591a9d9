"""Requests of netlink that are built here, and the kernel's replies to them."""

import errno
import socket
import struct

import pytest

from vmnic.host import raw_netlink
from vmnic.host.raw_netlink import (
    decode_attributes,
    decode_messages,
    encode_attributes,
    read_eswitch_mode,
    read_unicast_filter,
)

PF = "0000:3b:00.0"
MULTI, ERROR, DONE = 2, 2, 3


def message(kind, body, flags=0):
    made = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    return made + bytes(-len(made) % 4)


def generic(attributes):
    return b"\x01\x02\x00\x00" + encode_attributes(attributes)


def neighbour(link, mac, flags=2):
    return message(28, struct.pack("=BxxxiHBB", 7, link, 128, flags, 0) + encode_attributes({2: bytes.fromhex(mac)}), MULTI)


def refusal(code):
    return message(ERROR, struct.pack("=i", -code))


class Kernel:
    """A socket of netlink with replies."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.sent = []

    def __call__(self, *arguments):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def settimeout(self, seconds):
        pass

    def bind(self, address):
        pass

    def send(self, request):
        self.sent.append(request)

    def recv(self, size):
        return self.replies.pop(0)


@pytest.fixture
def kernel(monkeypatch):
    made = Kernel()
    monkeypatch.setattr(raw_netlink.socket, "socket", made)
    return made


@pytest.mark.parametrize(("number", "mode"), [(0, "legacy"), (1, "switchdev"), (2, "switchdev_inactive"), (9, "9")])
def test_the_mode_is_asked_of_the_family_that_the_kernel_names(kernel, number, mode):
    kernel.replies = [message(16, generic({1: struct.pack("=H", 21)})), message(21, generic({25: struct.pack("=H", number)}))]
    assert read_eswitch_mode(PF) == mode
    family, question = kernel.sent
    assert decode_attributes(family[20:]) == {2: b"devlink\0"}
    assert (struct.unpack_from("=H", question, 4)[0], question[16]) == (21, 29)
    assert decode_attributes(question[20:]) == {1: b"pci\0", 2: PF.encode() + b"\0"}


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EPERM], ids=errno.errorcode.get)
def test_a_refusal_has_the_errno_of_the_kernel(kernel, code):
    kernel.replies = [refusal(code)]
    with pytest.raises(OSError, match=r"^\[Errno") as refused:
        read_eswitch_mode(PF)
    assert refused.value.errno == code


@pytest.mark.parametrize(
    ("attributes", "code"), [({}, errno.EOPNOTSUPP), ({25: b"\x01"}, errno.EBADMSG)], ids=["no mode", "a byte"]
)
def test_a_reply_without_a_mode_is_no_mode(kernel, attributes, code):
    kernel.replies = [message(16, generic({1: struct.pack("=H", 21)})), message(21, generic(attributes))]
    with pytest.raises(OSError, match=r"^\[Errno") as refused:
        read_eswitch_mode(PF)
    assert refused.value.errno == code


def test_a_filter_has_the_unicast_addresses_of_one_link(kernel):
    entries = [
        neighbour(7, "020000000077"), neighbour(7, "333300000001"), neighbour(8, "020000000078"),
        neighbour(7, "020000000079", flags=4), neighbour(7, "02000000007a"), neighbour(7, "020000000077"),
    ]  # fmt: skip
    kernel.replies = [b"".join(entries[:3]), b"".join(entries[3:]), message(DONE, struct.pack("=i", 0), MULTI)]
    assert read_unicast_filter(7) == ("02:00:00:00:00:77", "02:00:00:00:00:7a")


def test_a_dump_that_ends_with_an_errno_is_refused(kernel):
    kernel.replies = [neighbour(7, "020000000077"), message(DONE, struct.pack("=i", -errno.EMSGSIZE), MULTI)]
    with pytest.raises(OSError, match="Message too long"):
        read_unicast_filter(7)


@pytest.mark.parametrize("cut", [b"\x10", b"\x10\x00\x00\x00" + bytes(4)], ids=["one byte", "half a header"])
def test_a_message_that_is_cut_is_refused(cut):
    with pytest.raises(OSError, match="cut"):
        decode_messages(cut)


@pytest.mark.parametrize("body", [b"\x00\x00\x01\x00", b"\xff\x00\x01\x00", b"\x04"], ids=["no length", "too long", "cut"])
def test_attributes_that_are_cut_are_left_out(body):
    assert decode_attributes(encode_attributes({3: b"abc"}) + body) == {3: b"abc"}


def test_this_kernel_answers_a_dump():
    assert read_unicast_filter(socket.if_nametoindex("lo")) == ()
