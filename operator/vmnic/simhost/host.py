"""Simulated host as a port.

It performs operations, keeps those that the kernel has not answered yet, and accepts commands.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ..host.events import HostEvent
from ..host.ops import ListDir, LoadModule, Op, PutFile, ReadFile, ReadLink, UnloadModule, Value, WriteFile, is_write
from ..host.ports import StillBlocked
from .commands import Commands
from .files import FileTree
from .kernel import Kernel, refuse
from .links import perform_on_links
from .model import Machine
from .spec import HostSpec, check_host
from .tree import Directory, File, Link, Node, resolve
from .udev import apply_rules

__all__ = ["SimHost"]

_TICK_S = 0.001
"""Interval, in seconds, at which a server checks the time if operations take time."""


class _Pending:
    """An operation that the kernel has not answered yet."""

    def __init__(self, running: Generator[None, None, Value]) -> None:
        self._running = running
        self.done = threading.Event()
        self.killed = False
        """Whether the program that waits for the operation was sent SIGKILL."""
        self.value: Value = None
        self.error: OSError | None = None

    def step(self) -> bool:
        """Advance as far as possible, and return whether the operation has ended."""
        try:
            next(self._running)
        except StopIteration as end:
            self.value = end.value
        except OSError as error:
            self.error = error
        else:
            return False
        self.done.set()
        return True

    def result(self) -> Value:
        """Return the kernel's answer.

        Raises:
            OSError: The kernel refused.
        """
        if self.error is not None:
            raise self.error
        return self.value


class Pause:
    """Holds one write in the kernel. If its process is killed meanwhile, the write is still carried out."""

    def __init__(self) -> None:
        self._left = 0
        self._open = threading.Event()
        self._open.set()
        self.reached = False
        """Whether the write has arrived."""

    def at(self, number: int) -> None:
        """Hold the n-th write from now on."""
        self._left, self.reached = number, False
        self._open.clear()

    def go_on(self) -> None:
        """Release the write."""
        self._left = 0
        self._open.set()

    def strike(self) -> None:
        """Block if this is the write to hold."""
        if self._left:
            self._left -= 1
            if not self._left:
                self.reached = True
                self._open.wait()


class SimHost:
    """A host behind `perform`.

    Args:
        spec: Description of the host.
        waits: True in a server, where `perform` returns when the kernel would answer. False in a test with one thread,
            where it raises StillBlocked, and the operation continues by itself once it is no longer blocked.

    Raises:
        ImpossibleHostError: No real host could match the spec.
    """

    def __init__(self, spec: HostSpec, *, waits: bool = False) -> None:
        check_host(spec)
        self._machine = Machine(spec)
        self._kernel = Kernel(self._machine)
        self._commands = Commands(self._machine)
        apply_rules(self._machine, self._kernel, self._machine.pfs)
        self._tree = FileTree(self._machine, self._kernel)
        self._waits = waits
        self._pending: list[_Pending] = []
        self._writers: list[_Pending] = []
        self._lock = threading.Lock()
        self._failures: list[tuple[str, int]] = []
        self._pause = Pause()
        self.writes = 0
        """Number of operations so far that change the host."""
        self.reads = 0

    def perform(self, op: Op) -> Value:
        """Perform an operation.

        Raises:
            OSError: The kernel refused.
            StillBlocked: The kernel has not answered.
        """
        if is_write(op):
            # Before the lock: while one write is held in the kernel, all other operations continue.
            self._pause.strike()
        with self._lock:
            self.writes += is_write(op)
            self.reads += not is_write(op)
            self._strike(op)
            answer = self._start(op)
            if not isinstance(answer, _Pending):
                return answer
            self._begin(answer)
        if not answer.done.is_set() and not self._waits:
            raise StillBlocked
        self._await(answer)
        return answer.result()

    def _await(self, answer: _Pending) -> None:
        """Wait for the kernel's answer, while time passes for all pending operations."""
        # Without delays only another operation or a command can end the wait, and both advance what is pending.
        while not answer.done.wait(_TICK_S if self._machine.spec.delays.any else None):
            with self._lock:
                self._step_pending()
        with self._lock:
            self._step_pending()

    def file(self, path: str) -> str:
        """Return the content of a file that is not the kernel's, or an empty string if it does not exist."""
        return self._machine.files.get(path, "")

    def group_of(self, address: str) -> str:
        """Return the IOMMU group of a function, or an empty string if the function does not exist."""
        found = self._machine.find(address)
        return str(found.group) if found is not None else ""

    def listen(self, listener: Callable[[HostEvent], None]) -> Callable[[], None]:
        """Call a listener for every event of the host, until the returned function is called."""
        with self._lock:
            self._machine.listeners.append(listener)
        return lambda: self._forget(listener)

    def _forget(self, listener: Callable[[HostEvent], None]) -> None:
        with self._lock:
            self._machine.listeners.remove(listener)

    def look(self, path: str) -> Node:
        """Return the node at a path without following a link there or counting an operation.

        Raises:
            OSError: The path does not exist.
        """
        with self._lock:
            return resolve(self._tree.root(), path, follow_last=False)

    def control(self, command: Mapping[str, Any]) -> Any:
        """Execute a command, such as holding a VF as QEMU does, unplugging a cable or rebooting.

        Raises:
            OSError: The command cannot be executed. EINVAL means an unknown command.
        """
        with self._lock:
            ((name, argument),) = command.items()
            method = getattr(self, f"_control_{name}", None) or self._commands.named(name)
            if method is None:
                raise refuse(errno.EINVAL, f"no command is called {name}")
            reply = method(argument)
            self._step_pending()
            return reply

    def _start(self, op: Op) -> Value | _Pending:
        """Perform an operation that the kernel answers at once, or return a pending one."""
        root = self._tree.root()
        match op:
            case ReadFile(path):
                node = resolve(root, path)
                return _Pending(_readable(node, path)())
            case WriteFile(path, text):
                node = resolve(root, path)
                # sysfs drops an empty write and does not call the driver (`sysfs_kf_write`).
                return _Pending(_writable(node, path)(text)) if text else None
            case ListDir(path):
                node = resolve(root, path)
                if not isinstance(node, Directory):
                    raise refuse(errno.ENOTDIR, path)
                return tuple(sorted(node.entries()))
            case ReadLink(path):
                node = resolve(root, path, follow_last=False)
                if not isinstance(node, Link):
                    raise refuse(errno.EINVAL, path)
                return node.target
            case PutFile(path, text):
                self._commands.put_file({"path": path, "text": text})
                return None
            case LoadModule() | UnloadModule():
                change = self._kernel.load if isinstance(op, LoadModule) else self._kernel.unload
                return _Pending(change(op.name))
        return _Pending(self._on_links(op)) if self._machine.spec.delays.link_s else perform_on_links(self._machine, op)

    def _on_links(self, op: Op) -> Generator[None, None, Value]:
        """Perform an operation on links, and hold the lock of all links while it takes time."""
        if is_write(op):
            yield from self._kernel.hold_links()
        return perform_on_links(self._machine, op)

    def _run(self, running: Generator[None, None, Value]) -> _Pending:
        return self._begin(_Pending(running))

    def _begin(self, pending: _Pending) -> _Pending:
        """Start an operation, and keep it as pending if it blocks."""
        if not pending.step():
            self._pending.append(pending)
        return pending

    def _strike(self, op: Op) -> None:
        """Refuse an operation that `fail_next` has selected."""
        for failure in self._failures:
            if failure[0] in str(op):
                self._failures.remove(failure)
                raise refuse(failure[1], "the hardware failed")

    def _step_pending(self) -> None:
        """Advance pending operations until none ends, because the end of one may unblock another."""
        while ended := [pending for pending in self._pending if pending.step()]:
            self._pending = [pending for pending in self._pending if pending not in ended]

    def _control_writes(self, _: Any) -> int:
        return self.writes

    def _control_pause_at(self, number: int) -> None:
        """Hold the n-th write from now on in the kernel until `go_on`."""
        self._pause.at(number)

    def _control_paused(self, _: Any) -> bool:
        return self._pause.reached

    def _control_go_on(self, _: Any) -> None:
        self._pause.go_on()

    def _control_reads(self, _: Any) -> int:
        return self.reads

    def _control_remove_device(self, address: str) -> None:
        """Remove a NIC, which disappears when all holders of its functions have closed them."""
        if address not in self._machine.pfs:
            raise refuse(errno.ENODEV, f"no PF is at {address}")
        self._run(self._kernel.remove(self._machine.pfs[address]))

    def _control_add_device(self, address: str) -> None:
        """Insert a removed NIC again."""
        self._kernel.add(address)
        apply_rules(self._machine, self._kernel, [address])

    def _control_start_writer(self, argument: Mapping[str, str]) -> int:
        """Start a program that writes a file and that may be killed meanwhile."""
        node = resolve(self._tree.root(), argument["path"])
        self._writers.append(self._run(_writable(node, argument["path"])(argument["text"])))
        return len(self._writers) - 1

    def _control_kill_writer(self, number: int) -> None:
        """Send SIGKILL to a writer, which remains until the kernel has ended its write."""
        self._writers[number].killed = True

    def _control_writer_state(self, number: int) -> str:
        """Return the process state of a writer that waits for a holder, or an empty string when it has ended."""
        writer = self._writers[number]
        # vfio waits interruptibly until the first signal, and uninterruptibly from then on.
        return "" if writer.done.is_set() else "D" if writer.killed else "S"

    def _control_reboot(self, _: Any) -> None:
        """Restart the host, which ends all pending operations."""
        for pending in self._pending:
            # No program survives a reboot, but the client's request has to end somehow.
            pending.error = refuse(errno.EIO, "the host was restarted")
            pending.done.set()
        self._pending.clear()
        self._machine.boot()
        apply_rules(self._machine, self._kernel, self._machine.pfs)

    def _control_fail_next(self, argument: Mapping[str, Any]) -> None:
        """Refuse the next operation whose text contains a word."""
        self._failures.append((str(argument["match"]), int(argument["errno"])))


def _readable(node: object, path: str) -> Any:
    if isinstance(node, Directory):
        raise refuse(errno.EISDIR, path)
    if not isinstance(node, File) or node.read is None:
        raise refuse(errno.EACCES, path)
    return node.read


def _writable(node: object, path: str) -> Any:
    if isinstance(node, Directory):
        raise refuse(errno.EISDIR, path)
    if not isinstance(node, File) or node.write is None:
        raise refuse(errno.EACCES, path)
    return node.write
