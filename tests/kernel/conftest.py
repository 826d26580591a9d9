"""Boots the guest once for all cases."""

import contextlib
from concurrent import futures

import pytest

from .lab import booted, prepare
from .remote import RemoteHost

_BOOT_S = 60


@pytest.fixture(scope="session")
def guest(tmp_path_factory):
    """A booted guest; a boot that does not end in an answer is the emulator's fault and is tried once more."""
    lab = prepare()
    directory = tmp_path_factory.mktemp("guest")
    for attempt in (1, 2):
        socket, log = directory / f"{attempt}.sock", directory / f"{attempt}.log"
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(booted(lab, socket, log))
            try:
                yield from _greeted(process, socket)
                return
            except futures.TimeoutError:
                print(log.read_text(errors="replace")[-3000:])
    pytest.fail("the guest does not answer")


def _greeted(process, socket):
    import time

    deadline = time.monotonic() + 10
    while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    host = RemoteHost(socket)
    host.greet(_BOOT_S)
    yield host
    host.close()
