"""`vmnic host record`, which writes down what vmnic sees of the host that it runs on."""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec

from ..checked.data_files import DataFileError
from ..checked.printable import printable
from ..flags import Flags
from ..host.client import Session, perform_each
from ..host.ops import Op, Port, Value
from ..host.worker import open_host
from ..nodes.nics import nic_files
from ..records.anonymise import anonymise
from ..records.document import write_record
from ..records.record import HostRecord, RecordError, to_record
from ..records.recorder import record_host
from .kubelet.podresources import HoldersUnknownError, KubeletHolders

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Record the host, and print or write the record."""
    chosen = _parse(arguments)
    try:
        if chosen.nic_data:
            nic_files.add(pathlib.Path(chosen.nic_data))
        record = asyncio.run(_record(chosen))
        text = write_record(anonymise(record) if chosen.anonymise else record)
        if chosen.output == "-":
            sys.stdout.write(text)
        else:
            pathlib.Path(chosen.output).write_text(text)
    except OSError as error:
        return _fail(f"{error.filename or 'the host'}: {error.strerror or error}: run it as root, with --root where /sys is")
    except (RecordError, DataFileError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(printable(f"vmnic host record: {message}"), file=sys.stderr)
    return 2


async def _record(chosen: argparse.Namespace) -> HostRecord:
    holders = KubeletHolders(pathlib.Path(chosen.pod_resources), pathlib.Path(chosen.device_plugins))
    try:
        told = await holders.read()
    except HoldersUnknownError as error:
        told = {}
        print(printable(f"vmnic host record: {error}: the record has no holders of pods"), file=sys.stderr)
    name = chosen.node or socket.gethostname().lower()
    record = await record_host(_ThreadHost(open_host(chosen.host, chosen.root)), name, told)
    # The reader's checks hold here too. A host that is changed meanwhile may report what cannot be true together.
    return to_record(msgspec.to_builtins(record))


class _ThreadHost:
    """Access to a port in a thread of its own, because pyroute2 runs an event loop itself."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._thread = ThreadPoolExecutor(max_workers=1)

    @asynccontextmanager
    async def session(self, pf: str, *, write: bool) -> AsyncIterator[Session]:  # noqa: ARG002 - the protocol's names
        """Open a session."""
        yield self

    async def perform(self, op: Op, *, deadline_s: float) -> Value:  # noqa: ARG002 - the person who waits can end the command
        """Perform an operation (see `Session`)."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._port.perform, op)

    async def perform_all(self, ops: Sequence[Op], *, deadline_s: float) -> list[Value | OSError]:
        """Perform operations in order (see `Session`)."""
        return await perform_each(self, ops, deadline_s=deadline_s)


def _parse(arguments: list[str]) -> argparse.Namespace:
    flags = Flags(prog="vmnic host", description="Writes a HostRecord, which describes the NICs of this host, as YAML.")
    flags.add_argument("what", choices=("record",), help="record: what vmnic sees of the host")
    flags.add_argument("-o", "--output", default="-", metavar="FILE", help="file to write; default standard output")
    flags.add_argument(
        "--anonymise", action="store_true", help="replace addresses and names; what was equal stays equal, PCI data stay"
    )
    flags.flag("node", "", "name of the node; default the name of this host")
    flags.flag("host", "linux", "linux, or sim:SOCKET for a simulated host")
    flags.flag("root", "/", "directory below which the host's /sys is")
    flags.flag("pod-resources", "/var/lib/kubelet/pod-resources/kubelet.sock", "the kubelet's socket that names holders")
    flags.flag("device-plugins", "/var/lib/kubelet/device-plugins", "the kubelet's directory of device plugins")
    flags.flag("nic-data", "", "file with additional NIC models, in the format of vmnic's nics.yaml")
    return flags.parse_args(arguments)
