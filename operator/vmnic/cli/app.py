"""The commands. Each imports what it needs, so that `--help` is instant."""

from __future__ import annotations

import asyncio
import json
import sys
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What vmnic did, would do, and why.",
)
_explain = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(_explain, name="explain", help="Explain a decision.")


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]
KubeconfigOption = Annotated[str | None, typer.Option(help="Path of a kubeconfig; default as kubectl's.")]


@app.command()
def plan(
    file: Annotated[
        list[str] | None,
        typer.Option("-f", "--filename", help="File, directory or - with manifests; repeatable. Without: the cluster."),
    ] = None,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Also read directories below those given.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show what the policies and pools would do: exit code 0 for nothing, 1 for changes, 2 for an error."""
    from .plan import decide_all, has_changes, make_plan

    offline = bool(file)
    objects, problems = _read_files(file, recursive=recursive) if file else _read_live(kubeconfig)
    made = make_plan(objects, decide_all(objects, offline=offline), problems)
    if output is Output.TABLE:
        from .render import show_plan

        show_plan(made)
        if objects.skipped:
            print(f"{objects.skipped} objects of other kinds were skipped")
    else:
        _print(made, output)
    raise typer.Exit(1 if has_changes(made) else 0)


@_explain.command("vm")
def explain_vm(
    name: Annotated[str, typer.Argument(help="Name of the VirtualMachine.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Its namespace.")] = "default",
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show, for each NIC of a VM, what it is, what it should be, and why each other candidate fell out."""
    from .plan import decide_all, make_plan

    objects, problems = _read_live(kubeconfig)
    decisions = [one for one in decide_all(objects, offline=False) if (one.vm.namespace, one.vm.name) == (namespace, name)]
    if not decisions:
        _fail(f"VirtualMachine {namespace}/{name} is not there; `kubectl get vm -n {namespace}` lists those that are")
    made = make_plan(objects, decisions, problems)
    if not made["vms"]:
        _fail(f"no VmNicPolicy selects VirtualMachine {namespace}/{name}; `kubectl get vnp` lists the policies")
    if output is not Output.TABLE:
        _print(made["vms"][0], output)
        return
    from .render import show_explanation

    show_explanation(made["vms"][0], decisions[0].vm.guest_os_source)


@app.command()
def nodes(
    name: Annotated[str | None, typer.Argument(help="Name of a node; default all.")] = None,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the NICs of nodes: VFs, who holds them, what is planned, what went wrong."""
    from ..nodes.state import wire
    from .live import NODE_KINDS

    objects, _ = _read_live(kubeconfig, NODE_KINDS)
    states = [state for _, state in sorted(objects.node_states.items()) if name in (None, state.metadata.name)]
    if name is not None and not states:
        _fail(f"node {name} has no NodeNicState; `kubectl get nns` lists those that have one")
    if output is not Output.TABLE:
        _print([wire(state) for state in states], output)
        return
    from .render import show_nodes

    show_nodes(states)


def _read_files(names: list[str], *, recursive: bool) -> tuple[Any, list[str]]:
    from .files import InputError, read_files

    try:
        return read_files(names, recursive=recursive), []
    except InputError as error:
        _fail(str(error))


def _read_live(kubeconfig: str | None, kinds: tuple[Any, ...] | None = None) -> tuple[Any, list[str]]:
    from ..kube.connection import ConnectionFileError
    from ..kube.errors import ApiError
    from .live import NODE_KINDS, VM_KINDS, read_cluster

    try:
        return asyncio.run(read_cluster(kubeconfig, kinds or (*NODE_KINDS, *VM_KINDS)))
    except (ConnectionFileError, ApiError) as error:
        _fail(str(error))


def _print(value: object, output: Output) -> None:
    if output is Output.JSON:
        print(json.dumps(value, indent=2))
        return
    import yaml

    print(yaml.safe_dump(value, sort_keys=False), end="")


def _fail(message: str) -> NoReturn:
    print(f"kubectl vmnic: {message}", file=sys.stderr)
    raise typer.Exit(2)
