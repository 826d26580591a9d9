"""Flags of the container's commands, and the rejection of wrong values from any source."""

import pytest

from vmnic.flags import Address, Flags, address, at_most, level, mtu, port, positive


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive, "0.5", 0.5), (at_most(9), "9", 9), (port, "0", 0), (port, "65535", 65535), (level, "debug", "debug"), (address, "", None), (mtu, "", None), (mtu, "68", 68), (mtu, "65535", 65535),
        (address, "127.0.0.1:9417", Address("127.0.0.1", 9417)), (address, "[::1]:9417", Address("::1", 9417)),
    ],
)  # fmt: skip
def test_a_value_is_read_from_its_variable_too(monkeypatch, kind, text, value):
    monkeypatch.setenv("VMNIC_THE_FLAG", text)
    flags = Flags(prog="vmnic test")
    flags.flag("the-flag", "", "what it is for", kind)
    assert flags.parse_args([]).the_flag == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (positive, "0"), (positive, "-1"), (positive, "soon"), (positive, "nan"), (positive, "inf"), (at_most(9), "10"), (port, "-1"), (port, "65536"),
        (port, "http"), (level, "loud"), (mtu, "67"), (mtu, "65536"), (mtu, "jumbo"), (mtu, "²"), (address, "9417"), (address, ":9417"), (address, "localhost:"),
    ],
)  # fmt: skip
def test_a_wrong_value_ends_the_command_and_names_the_flag(capsys, kind, text):
    flags = Flags(prog="vmnic test")
    flags.flag("the-flag", "", "what it is for", kind)
    with pytest.raises(SystemExit, match="2"):
        flags.parse_args([f"--the-flag={text}"])
    assert "argument --the-flag: " in capsys.readouterr().err
