"""What the commands share: options, how results and errors are printed, and how files and the cluster are read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import Annotated, Any, NoReturn, TypeVar

import typer

__all__ = ["KubeconfigOption", "Output", "OutputOption", "fail", "read_files", "read_live", "run", "show"]

T = TypeVar("T")


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]
KubeconfigOption = Annotated[str | None, typer.Option(help="Path of a kubeconfig; default as kubectl's.")]


def read_files(names: list[str], *, recursive: bool) -> Any:
    """Read manifests; what cannot be read ends the command."""
    from . import files

    try:
        return files.read_files(names, recursive=recursive)
    except files.InputError as error:
        fail(str(error))


def read_live(kubeconfig: str | None, kinds: tuple[Any, ...] | None = None) -> tuple[Any, list[str]]:
    """Read objects of the cluster, and what cannot be read in words; an API server that does not answer ends the command."""
    from .live import NODE_KINDS, VM_KINDS, read_cluster

    return run(read_cluster(kubeconfig, kinds or (*NODE_KINDS, *VM_KINDS)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do something in the cluster; an API server that refuses or does not answer ends the command."""
    from ..kube.connection import ConnectionFileError
    from ..kube.errors import ApiError

    try:
        return asyncio.run(work)
    except (ConnectionFileError, ApiError) as error:
        fail(str(error))


def show(value: object, output: Output) -> None:
    """Print a result for machines."""
    if output is Output.JSON:
        print(json.dumps(value, indent=2))
        return
    import yaml

    print(yaml.safe_dump(value, sort_keys=False), end="")


def fail(message: str) -> NoReturn:
    """End the command with an error: exit code 2."""
    print(f"kubectl vmnic: {message}", file=sys.stderr)
    raise typer.Exit(2)
