"""Flags of the container's commands.

Each flag has an environment variable, and a wrong value is rejected under the flag's name.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["LARGEST_MTU", "SMALLEST_MTU", "Address", "Flags", "address", "at_most", "level", "mtu", "port", "positive"]

SMALLEST_MTU, LARGEST_MTU = 68, 65535
"""Bounds of an MTU. IPv4 needs packets of 68 bytes."""
_MTU_DIGITS = 5
_LEVELS = ("debug", "info", "warning", "error")


class Address(NamedTuple):
    """Address on which something is served."""

    host: str
    port: int


class Flags(argparse.ArgumentParser):
    """A parser whose flags take their defaults from VMNIC_… variables."""

    def flag(self, name: str, default: str | None, text: str, kind: Callable[[str], Any] = str) -> None:
        """Add a flag, which is required if its default is None.

        `kind` parses the value, no matter whether it comes from the flag, the environment or the default.
        """
        variable = "VMNIC_" + name.upper().replace("-", "_")
        shown = "" if default is None else f"; default {default or 'none'}"
        value = os.environ.get(variable, default)
        told = f"{text} ({variable}{shown})"
        # argparse also passes a default that is text through `type`, so a wrong variable is rejected under the flag's name.
        self.add_argument(f"--{name}", default=value, required=value is None, type=kind, help=told, metavar="VALUE")


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    # The comparison is false for NaN too.
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def at_most(bound: float) -> Callable[[str], float]:
    """Return a parser of a number above 0 and up to a bound."""

    def read(text: str) -> float:
        number = positive(text)
        if number > bound:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {bound:g}")
        return number

    return read


def port(text: str) -> int:
    """Parse a TCP port, where 0 stands for none or any."""
    # `isdigit` alone accepts digits such as `²`, which `int` refuses with a text of its own.
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def mtu(text: str) -> int | None:
    """Parse an MTU in bytes, where an empty value stands for unknown."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MTU_DIGITS and SMALLEST_MTU <= int(text) <= LARGEST_MTU):
        raise argparse.ArgumentTypeError(f"{text!r} is not an MTU from {SMALLEST_MTU} to {LARGEST_MTU}")
    return int(text)


def address(text: str) -> Address | None:
    """Parse `ADDRESS:PORT`, where an empty value serves nothing.

    The address must not be omitted, because that would mean every interface.
    """
    # The last colon separates the port, because an IPv6 address has colons of its own.
    host, _, number = text.rpartition(":")
    if not text:
        return None
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:9417 or [::1]:9417")
    return Address(host.strip("[]"), port(number))


def level(text: str) -> str:
    """Parse a log level."""
    if text not in _LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_LEVELS)}")
    return text
