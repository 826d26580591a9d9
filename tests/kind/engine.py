"""The container engine: docker if it works on this machine, else podman, which is installed if it is missing.

podman gets its own configuration: runc (crun refuses hybrid cgroups), cgroupfs, and no higher limit of open files than the
machine allows. Its storage is in the cache, so it never changes the storage of the machine's user.
"""

from __future__ import annotations

import os
import pathlib
import resource
import shutil
import subprocess
from dataclasses import dataclass, field

from tests.harness.debian import CannotRun, install

__all__ = ["Engine", "EngineError", "find_engine"]

_PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "containernetworking-plugins", "iptables")
_MOST = {"nofile": (resource.RLIMIT_NOFILE, 1_048_576), "nproc": (resource.RLIMIT_NPROC, 32_768)}
"""Limits of a container. Without CAP_SYS_RESOURCE they cannot exceed podman's own, and podman lowers its limit of processes."""


class EngineError(Exception):
    """The engine failed. The message has its output."""


@dataclass(frozen=True)
class Engine:
    """One engine, and the environment that it needs."""

    program: str
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, check: bool = True, input: str | None = None) -> str:  # noqa: A002 - subprocess' word
        """Run the engine's program and return its output.

        Raises:
            EngineError: it failed.
        """
        words = [str(word) for word in arguments]
        env = os.environ | self.environment
        done = subprocess.run([self.program, *words], env=env, input=input, text=True, capture_output=True, check=False)
        if check and done.returncode:
            raise EngineError(f"{self.program} {' '.join(words[:3])}: {(done.stderr or done.stdout).strip()[-1500:]}")
        return done.stdout

    def feed(self, file: pathlib.Path, node: str, *command: str) -> None:
        """Run a command in a container with a file as its input.

        Raises:
            EngineError: it failed.
        """
        with file.open("rb") as data:
            words = [self.program, "exec", "-i", node, *command]
            done = subprocess.run(
                words, env=os.environ | self.environment, stdin=data, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise EngineError(f"{command[0]} in {node}: {done.stderr.strip()[-1500:]}")

    def has_image(self, tag: str) -> bool:
        """Return whether the engine has an image."""
        return bool(self.run("images", "-q", tag, check=False).strip())


def find_engine(cache: pathlib.Path) -> Engine:
    """Return an engine that works. podman is installed if there is none.

    Raises:
        CannotRun: no engine works.
    """
    docker = Engine("docker")
    if shutil.which("docker") and _trouble(docker) is None:
        return docker
    install(("podman", "runc", "iptables", "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns"), _PACKAGES)
    podman = Engine("podman", _configure(cache / "containers"))
    trouble = _trouble(podman)
    if trouble is not None:
        raise CannotRun(f"neither docker nor podman works: {trouble}")
    return podman


def _trouble(engine: Engine) -> str | None:
    """Return why an engine does not work, or None if it works."""
    try:
        engine.run("info")
    except EngineError as error:
        return str(error)
    return None


def _configure(directory: pathlib.Path) -> dict[str, str]:
    """Write podman's configuration and return the environment that names it."""
    directory.mkdir(parents=True, exist_ok=True)
    limits = {name: _at_most(number, most) for name, (number, most) in _MOST.items()}
    allowed = [f'"{name}={limit}:{limit}"' for name, limit in limits.items()]
    configuration, storage = directory / "containers.conf", directory / "storage.conf"
    configuration.write_text(
        f"[containers]\ndefault_ulimits = [{', '.join(allowed)}]\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    storage.write_text(f'[storage]\ndriver = "overlay"\nrunroot = "/run/vmnic-test"\ngraphroot = "{directory}/storage"\n')
    return {
        "CONTAINERS_CONF": str(configuration),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "KIND_EXPERIMENTAL_PROVIDER": "podman",
    }


def _at_most(number: int, most: int) -> int:
    hard = resource.getrlimit(number)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)
