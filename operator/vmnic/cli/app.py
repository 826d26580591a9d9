"""Commands of `kubectl vmnic`. Each imports its modules itself, so that `--help` is instant."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

from .common import (
    KubeconfigOption,
    OutputOption,
    PodNetworkMtuOption,
    read_files,
    read_live,
    run,
    warn_refused,
    warn_set_aside,
)
from .schema import FailOn
from .terminal import Output, fail, say, say_markdown, show, warn

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
_revert = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(_revert, name="revert", help="Undo changes of vmnic.")
_path = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(_path, name="path", help="Show the path of a packet.")
_host = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(_host, name="host", help="Record the hosts of nodes.")
_LOOK_AGAIN_S = 2.0


class LossOf(StrEnum):
    """What is lost."""

    NODE = "node"
    PF = "pf"


class PlanOutput(StrEnum):
    """Formats in which a plan is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"
    HTML = "html"


class PathOutput(StrEnum):
    """Formats in which a path is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    SVG = "svg"


_FileOption = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", help="File, directory or - with manifests; repeatable. Without: the cluster."),
]
_RecursiveOption = Annotated[bool, typer.Option("-R", "--recursive", help="Also read directories below those given.")]


class NodesOutput(StrEnum):
    """Formats in which nodes are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


@app.callback()
def common(
    nic_data: Annotated[
        pathlib.Path | None,
        typer.Option(envvar="VMNIC_NIC_DATA", help="File with additional NIC models, the same as the controller's."),
    ] = None,
    guest_data: Annotated[
        pathlib.Path | None,
        typer.Option(envvar="VMNIC_GUEST_DATA", help="File with more names of guest systems, the same as the controller's."),
    ] = None,
) -> None:
    """Load further NIC models and names of guest systems before a command runs."""
    if nic_data is None and guest_data is None:
        return
    from ..checked.data_files import DataFileError
    from ..kubevirt.guests import guest_files
    from ..nodes.nics import nic_files

    try:
        if nic_data is not None:
            nic_files.add(nic_data)
        if guest_data is not None:
            guest_files.add(guest_data)
    except DataFileError as error:
        fail(str(error))


@app.command()
def plan(
    file: _FileOption = None,
    recursive: _RecursiveOption = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Show only what differs from the plan of this file or directory, or of the cluster without the given files."
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="HostRecord, or directory of them, that stands for a node's NodeNicState; repeatable, with -f."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="What gives exit code 1; disruptive: a restart, or a VF that is in use.")
    ] = FailOn.CHANGES,
    output: Annotated[PlanOutput, typer.Option("-o", "--output", help="How to print the plan.")] = PlanOutput.TABLE,
    pod_network_mtu: PodNetworkMtuOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show what the policies and pools would do.

    Exit code 0 for nothing, 1 for changes, 2 for an error. Input that cannot be read gives 2; each piece of it is named, and
    the
    plan of the rest is printed.
    """
    from .plan import fails

    errors: list[str] = []
    made, skipped, basis = _plan(
        file or [], host or [], against, errors, recursive=recursive, kubeconfig=kubeconfig, pod_mtu=pod_network_mtu
    )
    if output is PlanOutput.TABLE:
        from .render import show_plan

        show_plan(made)
        if skipped:
            say(f"{skipped} objects of other kinds were skipped")
    elif output is PlanOutput.MARKDOWN:
        from .markdown import render_markdown

        say_markdown(render_markdown(made))
    elif output is PlanOutput.HTML:
        from .capacity import capacity_rows
        from .page import render_page
        from .path import paths_of_plan

        for line in render_page(made, capacity_rows(*basis), paths_of_plan(made, *basis)):
            say(line)
    else:
        show(made, Output(output.value))
    for error in errors:
        warn(f"kubectl vmnic: {error}")
    # An error comes first: 0 and 1 say that all input was planned.
    raise typer.Exit(2 if errors else 1 if fails(made, fail_on) else 0)


def _plan(
    files: list[str],
    hosts: list[str],
    against: str | None,
    errors: list[str],
    *,
    recursive: bool,
    kubeconfig: str | None,
    pod_mtu: int | None,
) -> tuple[Any, int, tuple[Any, Any]]:
    """Build the plan, or the difference of two plans.

    Returns:
        The plan, the number of skipped objects, and the objects and decisions behind the plan. Unusable objects are appended
        to `errors`.
    """
    from .offline import decide_all
    from .plan import difference, make_plan
    from .recorded import add_host_files, plan_recorded

    def plan_of(objects: Any, problems: list[str], *, offline: bool, new: Any = ()) -> tuple[Any, tuple[Any, Any]]:
        recorded = plan_recorded(objects)
        # What the plans on recorded hosts would leave behind is there for the VMs.
        decided = decide_all(recorded.objects, offline=offline, new=new, pod_network_mtu=pod_mtu)
        decided.set_aside.extend(recorded.set_aside)
        made = make_plan(recorded.objects, decided, problems, recorded)
        if offline:
            # Files are the user's own, so a fault in them is an error.
            # In a cluster, an object of one tenant must not fail every plan.
            errors.extend(one.sentence for one in (*objects.set_aside, *decided.set_aside))
        else:
            errors.extend(one.sentence for one in recorded.set_aside)
        return made, (recorded.objects, decided)

    if not files and (against is not None or hosts):
        fail(f"{'--host plans pools of' if hosts else '--against compares'} files: give them with -f")
    given = read_files(files, recursive=recursive) if files else None
    if given is not None:
        add_host_files(given, hosts, recursive=recursive)
    if against == "cluster" and given is not None:
        live, problems = read_live(kubeconfig)
        before, _ = plan_of(live, problems, offline=False)
        # VMs that the cluster does not have yet are planned as they would be created.
        new = given.machines.keys() - live.machines.keys()
        errors.extend(one.sentence for one in given.set_aside)
        made, basis = plan_of(live.overlaid(given), problems, offline=False, new=new)
        return difference(made, before), given.skipped, basis
    if given is None:
        live, problems = read_live(kubeconfig)
        made, basis = plan_of(live, problems, offline=False)
        return made, 0, basis
    made, basis = plan_of(given, [], offline=True)
    if against is not None:
        earlier = read_files([against], recursive=recursive)
        # The hosts are the same before and after, unless the earlier files have records of their own.
        earlier.host_records = given.host_records | earlier.host_records
        before, _ = plan_of(earlier, [], offline=True)
        made = difference(made, before)
    return made, given.skipped, basis


@_explain.command("vm")
def explain_vm(
    name: Annotated[str, typer.Argument(help="Name of the VirtualMachine.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Its namespace.")] = "default",
    output: OutputOption = Output.TABLE,
    pod_network_mtu: PodNetworkMtuOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show, for each NIC of a VM, what it is, what it should be, and why each other candidate fell out."""
    from .offline import decide_all
    from .plan import plan_vm

    objects, _ = read_live(kubeconfig)
    decided = decide_all(objects, offline=False, pod_network_mtu=pod_network_mtu)
    warn_refused(objects)
    aside = (*objects.set_aside, *decided.set_aside)
    # Other objects that the VM depends on are named by the reasons of its NICs.
    warn_set_aside(one for one in aside if one.kind == "VmNicPolicy")
    found = next((one for one in decided.vms if (one.vm.namespace, one.vm.name) == (namespace, name)), None)
    if found is None:
        _fail_set_aside(aside, namespace, name)
        fail(f"VirtualMachine {namespace}/{name} does not exist; `kubectl get vm -n {namespace}` lists those that do")
    if not found.selected:
        fail(f"no VmNicPolicy selects VirtualMachine {namespace}/{name}; `kubectl get vnp` lists the policies")
    made = plan_vm(objects, decided, found)
    if output is not Output.TABLE:
        show(made, output)
        return
    from .render import show_explanation

    show_explanation(made, found.vm)


def _fail_set_aside(aside: Iterable[Any], namespace: str, name: str) -> None:
    """End the command with an error if the VM exists but cannot be handled."""
    for one in aside:
        if (one.kind, one.namespace, one.name) == ("VirtualMachine", namespace, name):
            fail(f"{one.sentence}: correct it, and vmnic reads it again")


@app.command("drain-plan")
def drain_plan(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    file: _FileOption = None,
    recursive: _RecursiveOption = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show what a drain of a node would do to its VMs.

    Exit code 0 if all of them migrate, 1 if one is stopped, blocks the drain, or may do so, 2 for an error.
    """
    from .drain import is_disruptive, is_known, make_drain_plan

    objects, decided, missing, errors = _read_and_decide(file or [], recursive=recursive, kubeconfig=kubeconfig)
    if not is_known(objects, node) and not errors:
        absent = objects.refused.get("Node") or "`kubectl get nodes` lists those that do"
        fail(f"node {node} {'is not given: add `kubectl get nodes -o yaml`' if file else f'does not exist: {absent}'}")
    made = make_drain_plan(node, objects, decided, missing, offline=bool(file))
    if output is Output.TABLE:
        from .render import show_drain_plan

        show_drain_plan(made)
    else:
        show(made, output)
    _exit(errors, is_disruptive(made))


_PathOption = Annotated[PathOutput, typer.Option("-o", "--output", help="How to print the paths.")]


@_path.command("vm")
def path_vm(
    name: Annotated[str, typer.Argument(help="Name of the VirtualMachine.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Its namespace.")] = "default",
    file: _FileOption = None,
    recursive: _RecursiveOption = False,
    output: _PathOption = PathOutput.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the layers that a packet passes between guest and port, and which ones the datapath leaves out.

    States of a NIC: Running (in the running VM), Spec (at its next start), Wanted (what a policy asks for).
    """
    _show_path("VirtualMachine", namespace, name, file or [], output, recursive=recursive, kubeconfig=kubeconfig)


@_path.command("domain")
def path_domain(
    name: Annotated[str, typer.Argument(help="Name of the libvirt domain.")],
    file: Annotated[
        list[str], typer.Option("-f", "--filename", help="File, directory or - with its XML and manifests; repeatable.")
    ],
    recursive: _RecursiveOption = False,
    output: _PathOption = PathOutput.TABLE,
) -> None:
    """Show the layers that a packet passes between a libvirt domain and the port, from the domain's XML."""
    _show_path("Domain", "", name, file, output, recursive=recursive, kubeconfig=None)


def _show_path(
    kind: str, namespace: str, name: str, files: list[str], output: PathOutput, *, recursive: bool, kubeconfig: str | None
) -> None:
    """Print the paths of one VM or domain.

    Files that cannot be read give exit code 2 after the rest is printed.
    """
    from .offline import decide_all
    from .path import index_ports, paths_of_vm, vm_key
    from .recorded import plan_recorded

    objects = read_files(files, recursive=recursive) if files else read_live(kubeconfig)[0]
    recorded = plan_recorded(objects)
    decided = decide_all(recorded.objects, offline=bool(files))
    warn_refused(objects)
    aside = (*objects.set_aside, *decided.set_aside, *recorded.set_aside)
    found = next((one for one in decided.vms if vm_key(one.vm) == (kind, namespace, name)), None)
    where = "/".join(filter(None, (namespace, name)))
    # Files are the user's own, so a fault in them is an error.
    faults = [f"kubectl vmnic: {one.sentence}" for one in aside] if files else []
    if found is None:
        _fail_set_aside(aside, namespace, name)
        # The file that cannot be read may be the one with the VM.
        for fault in faults:
            warn(fault)
        remedy = "add it to the files" if files else f"`kubectl get vm -n {namespace}` lists those that do"
        fail(f"{kind} {where} {'is not given' if files else 'does not exist'}: {remedy}")
    made = paths_of_vm(decided, found, index_ports(recorded.objects))
    if output is PathOutput.TABLE:
        from .render import show_path

        show_path(made)
    elif output is PathOutput.SVG:
        from .svg import render_paths

        for line in render_paths(made):
            say(line)
    else:
        show(made, Output(output.value))
    for fault in faults:
        warn(fault)
    if faults:
        raise typer.Exit(2)
    warn_set_aside(one for one in aside if one.kind == "VmNicPolicy")


@app.command()
def capacity(
    survive: Annotated[
        LossOf | None, typer.Option(help="Show whether all VMs with VFs still fit after the loss of any one node or PF.")
    ] = None,
    file: _FileOption = None,
    recursive: _RecursiveOption = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show how many VFs each pool has.

    Numbers are desired, configured, in use, assigned, reserved and free. With --survive, exit code 0 if all VMs with VFs fit
    after any loss, 1 if one does not or that is unknown. Exit code 2 for an error.
    """
    objects, decided, missing, errors = _read_and_decide(file or [], recursive=recursive, kubeconfig=kubeconfig)
    if survive is not None:
        from .survival import make_survival

        made = make_survival(survive.value, objects, decided, missing, offline=bool(file))
        if output is Output.TABLE:
            from .render import show_survival

            show_survival(made)
        else:
            show(made, output)
        _exit(errors, made["survives"] is not True)
    from .capacity import capacity_json, capacity_rows

    if not file:
        warn_refused(objects)
        warn_set_aside((*objects.set_aside, *decided.set_aside))
    rows = capacity_rows(objects, decided)
    if output is not Output.TABLE:
        show(capacity_json(rows), output)
    else:
        from .render import show_capacity

        show_capacity(rows)
    _exit(errors, False)


def _read_and_decide(files: list[str], *, recursive: bool, kubeconfig: str | None) -> tuple[Any, Any, list[str], list[str]]:
    """Read files, or the cluster without any, and decide all VMs.

    Returns:
        The objects, the decisions, descriptions of kinds that the cluster does not have, and errors in the files.
    """
    from .offline import decide_all
    from .recorded import plan_recorded

    if not files:
        objects, missing = read_live(kubeconfig)
        return objects, decide_all(objects, offline=False), missing, []
    given = read_files(files, recursive=recursive)
    recorded = plan_recorded(given)
    decided = decide_all(recorded.objects, offline=True)
    decided.set_aside.extend(recorded.set_aside)
    # Files are the user's own, so a fault in them is an error.
    return recorded.objects, decided, [], [one.sentence for one in (*given.set_aside, *decided.set_aside)]


def _exit(errors: Iterable[str], is_bad: bool) -> NoReturn:
    found = list(errors)
    for error in found:
        warn(f"kubectl vmnic: {error}")
    raise typer.Exit(2 if found else 1 if is_bad else 0)


@app.command()
def status(
    wait: Annotated[bool, typer.Option("--wait", help="Wait until everything is as desired.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show whether everything is as desired and all prerequisites are met.

    Exit code 0 if so, 1 if not, 2 if the cluster is unreachable.
    """
    import time

    from .render import show_set_aside, show_status
    from .status import wire_status

    while True:
        lines, aside = _status(kubeconfig)
        well = all(line.ok for line in lines) and not aside
        if well or not wait:
            break
        time.sleep(_LOOK_AGAIN_S)
    if output is Output.TABLE:
        show_status(lines)
        show_set_aside(aside)
    else:
        show(wire_status(lines, aside), output)
    raise typer.Exit(0 if well else 1)


def _status(kubeconfig: str | None) -> tuple[list[Any], list[Any]]:
    """Collect the status lines, and the objects that this program or the controller has set aside."""
    from .live import read_published, read_setup
    from .offline import decide_all
    from .setup import Line
    from .status import merge_set_aside, status_lines

    objects, missing = read_live(kubeconfig)
    setup = run(read_setup(kubeconfig))
    published, why = run(read_published(kubeconfig))
    decided = decide_all(objects, offline=False)
    lines = status_lines(objects, decided, setup, missing)
    if why:
        lines.append(Line(ok=True, known=False, what="set aside", text=why))
    return lines, merge_set_aside(objects.set_aside, decided.set_aside, published)


@_revert.command("vm")
def revert_vm(
    name: Annotated[str, typer.Argument(help="Name of the VirtualMachine.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Its namespace.")] = "default",
    apply: Annotated[bool, typer.Option("--apply", help="Patch the VM. Without it, only print the patch.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Restore the NICs that a VM had before vmnic changed them, and exclude it from the policies."""
    from ..kubevirt.revert import EXCLUDE
    from .live import patch_machine
    from .revert import plan_revert

    objects, _ = read_live(kubeconfig)
    machine = objects.machines.get((namespace, name))
    if machine is None:
        _fail_set_aside(objects.set_aside, namespace, name)
        fail(f"VirtualMachine {namespace}/{name} does not exist; `kubectl get vm -n {namespace}` lists those that do")
    patch, refusal = plan_revert(machine, objects.networks)
    if refusal:
        fail(f"VirtualMachine {namespace}/{name} is unchanged: {refusal}")
    if not patch:
        say(f"vmnic has changed nothing in VirtualMachine {namespace}/{name}")
        return
    if not apply:
        # The patch alone goes to standard output, so that it can be written to a file.
        show(patch, Output.JSON)
        warn(f"apply the patch with --apply, or with: kubectl patch vm {name} -n {namespace} --type=json --patch-file FILE")
        return
    run(patch_machine(kubeconfig, namespace, name, patch))
    say(f"VirtualMachine {namespace}/{name} has its previous NICs at its next start; annotation {EXCLUDE} keeps policies off")


@app.command()
def nodes(
    name: Annotated[str | None, typer.Argument(help="Name of a node; default all.")] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="HostRecord of a node, or directory of them; repeatable. Without: fetched from the agent of NAME."),
    ] = None,
    output: Annotated[
        NodesOutput, typer.Option("-o", "--output", help="How to print the nodes; wide: one row for each VF.")
    ] = NodesOutput.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the NICs of nodes.

    For each PF it shows the VFs, who holds them, what is planned and what went wrong.

    With -o wide, json or yaml it shows each VF. IOMMU groups, MAC addresses, VLANs and the names of libvirt's node devices come
    from the HostRecord of the node. To fetch it, you need the right to create pods/exec where the agent runs.
    """
    from .node_states import read_states
    from .nodes import describe_node, wire_nodes

    found = read_states(kubeconfig, name, host or [])
    for line in found.errors:
        warn(f"kubectl vmnic: {line}")
    if name is not None and not found.states:
        _fail_unread_state(found.set_aside, name)
        remedy = "give its HostRecord with --host" if host else "`kubectl get nicst` lists those that have one"
        fail(f"node {name} has no NodeNicState; {remedy}")
    if output is NodesOutput.TABLE:
        from .render import show_nodes

        show_nodes(found.states)
    else:
        records = found.records if host else _fetch_records(name, kubeconfig)
        made = [
            describe_node(one, records.get(one.metadata.name), from_record=one.metadata.name in found.from_records)
            for one in found.states
        ]
        if output is NodesOutput.WIDE:
            from .render import show_functions

            show_functions(made)
        else:
            show(wire_nodes(made), Output(output.value))
    raise typer.Exit(2 if found.errors else 0)


def _fetch_records(node: str | None, kubeconfig: str | None) -> dict[str, Any]:
    """Fetch the record of one node.

    Without a name, or if it cannot be fetched, it says once what is unknown.
    """
    from .host_record import FetchError, fetch_record

    unknown = "IOMMU groups of VFs, MAC addresses, VLANs and names of node devices are unknown"
    if node is None:
        warn(f"{unknown}: give NAME to fetch the HostRecord of one node, or --host")
        return {}
    try:
        return {node: fetch_record(node, kubeconfig, anonymise=False)}
    except FetchError as error:
        warn(f"node {node}: {unknown}: {error}")
        return {}


@_host.command("record")
def record_node(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    output: Annotated[str, typer.Option("-o", "--output", help="File to write; - for standard output.")] = "-",
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Replace addresses and names. Equal ones stay equal, and PCI data stay.")
    ] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Write a HostRecord of a node, which `plan --host` reads.

    It runs in the pod of the node's agent, so it needs the right to create pods/exec there.
    """
    from ..records.document import write_record
    from .host_record import FetchError, fetch_record

    try:
        text = write_record(fetch_record(node, kubeconfig, anonymise=anonymise))
        if output != "-":
            pathlib.Path(output).write_text(text)
    except FetchError as error:
        fail(f"node {node}: {error}")
    except OSError as error:
        fail(f"{output}: {error.strerror}: give a file that can be written")
    if output == "-":
        for line in text.splitlines():
            say(line)


def _fail_unread_state(aside: Iterable[Any], node: str) -> None:
    """End the command with an error if the node's state exists but cannot be read."""
    for one in aside:
        if (one.kind, one.name) == ("NodeNicState", node):
            fail(f"{one.sentence}: its agent writes it again; check that its version is the controller's")


@app.command()
def approve(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    pf: Annotated[str | None, typer.Argument(help="PCI address or interface name of one function; default all.")] = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Approve a node's plan.

    Needed with `disruption: Manual`, and to try a plan again after it was rolled back.
    """
    from ..api.node_state import APPROVED
    from .approve import ApprovalError, approve_plans
    from .live import NODE_KINDS, annotate_state

    objects, _ = read_live(kubeconfig, NODE_KINDS)
    state = objects.node_states.get(node)
    if state is None:
        _fail_unread_state(objects.set_aside, node)
        fail(f"node {node} has no NodeNicState; `kubectl get nicst` lists those that have one")
    try:
        approval = approve_plans(state, pf)
    except ApprovalError as error:
        fail(str(error))
    run(annotate_state(kubeconfig, node, APPROVED, approval.value))
    for line in approval.lines:
        say(f"approved on {node}: {line}")


@app.command()
def uninstall(
    apply: Annotated[bool, typer.Option("--apply", help="Remove them. Without it, only list what would be removed.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Nodes keep what they have. Do not wait for nodes or VMs.")
    ] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Remove all pools and policies and wait for their nodes.

    Run it before you remove vmnic itself. It also works where the controller is gone.
    """
    import logging

    from ..kube.resources import POLICIES
    from .live import NODE_KINDS
    from .uninstall import describe, uninstall_all

    if not apply:
        objects, problems = read_live(kubeconfig, (*NODE_KINDS, POLICIES))
        for line in (*describe(objects), *problems):
            say(line)
        warn_set_aside(objects.set_aside)
        warn("--apply removes them")
        return
    # While a controller holds the Lease, this process cannot acquire it. That is expected and not worth a warning.
    logging.getLogger("vmnic").setLevel(logging.ERROR)
    run(uninstall_all(kubeconfig, abandon=abandon, tell=say))
    say("no pool and no policy is left; now remove what you installed: kubectl delete -k, or helm uninstall and the CRDs")
