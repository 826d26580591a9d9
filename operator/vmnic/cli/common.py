"""Options and readers that the commands share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Annotated, Any, TypeVar

import typer

from ..flags import LARGEST_MTU, SMALLEST_MTU
from .terminal import Output, fail, warn

__all__ = [
    "KubeconfigOption",
    "OutputOption",
    "PodNetworkMtuOption",
    "read_files",
    "read_live",
    "run",
    "warn_refused",
    "warn_set_aside",
]

T = TypeVar("T")
_MOST_WARNINGS = 20

OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]
PodNetworkMtuOption = Annotated[
    int | None,
    typer.Option(
        envvar="VMNIC_POD_NETWORK_MTU",
        min=SMALLEST_MTU,
        max=LARGEST_MTU,
        help="MTU of the pod network, the same as the controller's.",
    ),
]
KubeconfigOption = Annotated[str | None, typer.Option(help="Path of a kubeconfig; default as kubectl's.")]


def read_files(names: list[str], *, recursive: bool) -> Any:
    """Read manifests. Those that cannot be read are recorded in the result."""
    from . import files  # noqa: PLC0415 - commands import what they need, so that --help is instant

    return files.read_files(names, recursive=recursive)


def read_live(kubeconfig: str | None, kinds: tuple[Any, ...] | None = None) -> tuple[Any, list[str]]:
    """Read objects of the cluster.

    An API server that does not answer ends the command.

    Returns:
        The objects, and descriptions of kinds that the cluster does not have.
    """
    from .live import NODE_KINDS, VM_KINDS, read_cluster  # noqa: PLC0415 - likewise

    return run(read_cluster(kubeconfig, kinds or (*NODE_KINDS, *VM_KINDS)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that uses the cluster.

    An API server that refuses or does not answer ends the command.
    """
    from ..kube.connection import ConnectionFileError  # noqa: PLC0415 - likewise
    from ..kube.errors import ApiError  # noqa: PLC0415 - likewise

    try:
        return asyncio.run(work)
    except (ConnectionFileError, ApiError) as error:
        fail(str(error))


def warn_refused(objects: Any) -> None:
    """Warn of the kinds that the user may not read."""
    for text in objects.refused.values():
        warn(text)


def warn_set_aside(found: Iterable[Any]) -> None:
    """Warn of the objects that are left out."""
    sentences = [one.sentence for one in found]
    for sentence in sentences[:_MOST_WARNINGS]:
        warn(f"set aside: {sentence}")
    if len(sentences) > _MOST_WARNINGS:
        warn(f"set aside: {len(sentences) - _MOST_WARNINGS} more; `kubectl vmnic status` lists them")
