"""`kubectl vmnic nodes`: every function and VF, with what a HostRecord adds."""

import json
import pathlib

import pytest
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner

from tests.builders.vm import node_state
from vmnic.cli import host_record, live
from vmnic.cli.app import app
from vmnic.cli.nodes import Nodes
from vmnic.cli.objects import Objects
from vmnic.kube.errors import ApiError
from vmnic.records.document import parse_record
from vmnic.records.record import to_record

HOSTS = pathlib.Path(__file__).parents[2] / "hosts"
PF, VF0, VF1 = "0000:0b:00.0", "0000:0b:10.0", "0000:0b:10.2"
UNKNOWN = {"IOMMU GROUP": "-", "MAC": "-", "VLAN": "-", "NODEDEV": "-"}


def state(**changes):
    """Return the state of a node with two VFs, of which the first is held, and a NIC without SR-IOV."""
    made = node_state("n1", vfs=2)
    pf = made["status"]["pfs"][0]
    pf |= {"held": [{"vf": VF0, "by": "pod tenants/db"}], "vfs": [{"range": "0", "driver": "vfio-pci"}, {"range": "1"}]}
    plain = {"pciAddress": "0000:04:00.0", "name": "enp4s0", "driver": "igc", "iommuGroup": 15}
    made["status"]["pfs"] = [pf | changes, plain]
    return made


def host(**changes):
    """Return a HostRecord of the same node."""
    sriov = {"totalVfs": 7, "numVfs": 2}
    ids = {"vendor": "8086", "class": "020000"}
    device = {
        **ids,
        "address": PF,
        "device": "1521",
        "driver": "igb",
        "iommuGroup": 34,
        "sriov": sriov,
        "virtualFunctions": [VF0, VF1],
    }
    vf = {**ids, "device": "1520", "physicalFunction": PF}
    attributes = [{"index": 0, "mac": "02:00:00:00:01:00", "vlan": 100}, {"index": 1, "mac": "02:00:00:00:01:01", "vlan": 0}]
    link = {"index": 2, "name": "ens1f0", "parent": PF, "mac": "02:00:00:00:00:02", "vfs": attributes}
    return {
        "apiVersion": "cli.vmnic.dev/v1alpha1",
        "kind": "HostRecord",
        "metadata": {"name": "n1"},
        "pciDevices": [
            device,
            {**vf, "address": VF0, "driver": "vfio-pci", "iommuGroup": 50},
            {**vf, "address": VF1, "driver": "igbvf"},
        ],
        "links": [link, {"index": 3, "name": "ens1f0v1", "parent": VF1, "mac": "02:00:00:00:02:01"}],
    } | changes


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run `nodes` on given states, and return exit code, output and messages.

    The record is what the agent answers with, or why it does not.
    """
    calls = []

    def invoke(*arguments, states=(), record=None, files=()):
        async def read_cluster(kubeconfig, kinds):
            if isinstance(states, Exception):
                raise states
            objects = Objects(of_server=True)
            for one in states:
                live.load_live(objects, one)
            return objects, []

        def fetch_record(node, kubeconfig, *, anonymise):
            calls.append((node, kubeconfig, anonymise))
            if record is None:
                raise host_record.FetchError("pods is forbidden: it needs the right to create pods/exec in namespace a")
            return to_record(record)

        monkeypatch.setattr(live, "read_cluster", read_cluster)
        monkeypatch.setattr(host_record, "fetch_record", fetch_record)
        paths = [tmp_path / f"{number}.yaml" for number, _ in enumerate(files)]
        for path, one in zip(paths, files, strict=True):
            path.write_text(yaml.safe_dump(one))
        given = [part for path in paths for part in ("--host", str(path))]
        done = CliRunner().invoke(app, ["nodes", *map(str, arguments), *given])
        return done.exit_code, done.stdout, done.stderr

    invoke.calls = calls
    return invoke


def rows(text):
    """Return the rows of a table by address, each as cells by heading."""
    head, *lines = (line.rstrip() for line in text.splitlines())
    names = [name for name in head.split("  ") if name]
    starts = [head.index(name.strip()) for name in names]
    ends = [*starts[1:], None]
    cells = [
        {name.strip(): line[first:last].strip() for name, first, last in zip(names, starts, ends, strict=True)}
        for line in lines
    ]
    return {one["ADDRESS"]: one for one in cells}


def functions(text):
    """Return the functions of a document by address, after a check of its schema."""
    made = json.loads(text)
    TypeAdapter(Nodes).validate_python(made, strict=True)
    return {one["address"]: one for node in made["nodes"] for one in node["functions"]}


def test_a_wide_table_has_a_row_for_each_vf(run):
    code, out, err = run("n1", "-o", "wide", "--kubeconfig", "c", states=[state()], record=host())
    found = rows(out)
    assert (code, err, list(found)) == (0, "", [PF, VF0, VF1, "0000:04:00.0"])
    assert found[VF0] == {
        "NODE": "n1", "PF": PF, "NAME": "ens1f0", "VF": "0", "ADDRESS": VF0, "DRIVER": "vfio-pci", "HELD BY": "pod tenants/db",
        "POOL": "fast", "IOMMU GROUP": "50", "MAC": "02:00:00:00:01:00", "VLAN": "100", "NODEDEV": "pci_0000_0b_10_0",
    }  # fmt: skip
    assert run.calls == [("n1", "c", False)]


def test_absence_is_told_from_what_is_unknown(run):
    _, out, _ = run("n1", "-o", "wide", states=[state()], record=host())
    found = rows(out)[VF1]
    assert [found[name] for name in ("DRIVER", "HELD BY", "IOMMU GROUP", "VLAN")] == ["none", "", "none", "none"]


def test_the_address_of_a_vf_is_that_of_its_own_link(run):
    _, out, _ = run("n1", "-o", "json", states=[state()], record=host())
    assert [vf["mac"] for vf in functions(out)[PF]["vfs"]] == ["02:00:00:00:01:00", "02:00:00:00:02:01"]


def test_a_nic_without_sriov_and_a_whole_nic_have_rows(run):
    whole = {"driver": "vfio-pci", "numVfs": 0, "vfs": [], "firstVf": "", "held": [{"vf": PF, "by": "pod tenants/fw"}]}
    _, out, _ = run("n1", "-o", "wide", states=[state(**whole)], record=host())
    found = rows(out)
    assert [found[PF][name] for name in ("DRIVER", "HELD BY", "POOL", "IOMMU GROUP", "VLAN", "NODEDEV")] == [
        "vfio-pci", "pod tenants/fw", "fast", "34", "", "pci_0000_0b_00_0",
    ]  # fmt: skip
    assert found["0000:04:00.0"] | {"VLAN": "-"} == {
        "NODE": "n1", "PF": "0000:04:00.0", "NAME": "enp4s0", "VF": "", "ADDRESS": "0000:04:00.0", "DRIVER": "igc", "HELD BY": "",
        "POOL": "",
    } | UNKNOWN | {"IOMMU GROUP": "15"}  # fmt: skip


def test_without_a_record_the_state_is_shown_and_it_is_told_once(run):
    code, out, err = run("n1", "-o", "wide", states=[state()])
    found = rows(out)
    assert (code, err.count("\n"), err.count("create pods/exec")) == (0, 1, 1)
    assert {name: found[VF0][name] for name in UNKNOWN} == UNKNOWN
    assert (found[VF0]["DRIVER"], found[VF0]["HELD BY"]) == ("vfio-pci", "pod tenants/db")


def test_what_is_unknown_is_absent_in_json(run):
    _, out, _ = run("n1", "-o", "json", states=[state()])
    assert functions(out)[PF]["vfs"][0] == {
        "index": 0, "address": VF0, "pool": "fast", "holder": "pod tenants/db", "driver": "vfio-pci",
    }  # fmt: skip


@pytest.mark.parametrize("output", ["wide", "json", "yaml"])
def test_records_of_all_nodes_are_not_fetched(run, output):
    code, _, err = run("-o", output, states=[state()], record=host())
    assert (code, run.calls) == (0, [])
    assert "give NAME" in err


def test_the_table_of_pfs_needs_no_record(run):
    code, out, err = run("n1", states=[state()], record=host())
    assert (code, err, run.calls) == (0, "", [])
    assert out.startswith("NODE  PF ")


def test_json_and_yaml_have_plan_and_problem(run):
    plan = {"digest": "a" * 32, "text": "remove all VFs", "disruptive": True, "blockedBy": ["pod tenants/db holds it"]}
    problem = {"reason": "HostUsed", "message": "an address"}
    _, out, _ = run("n1", "-o", "json", states=[state(plan=plan, problem=problem)], record=host())
    found = functions(out)[PF]
    assert found["plan"] == {"text": "remove all VFs", "disruptive": True, "blockedBy": ["pod tenants/db holds it"]}
    assert (found["problem"], found["possibleVfs"], found["pools"]) == (problem, 7, ["fast"])
    _, text, _ = run("n1", "-o", "yaml", states=[state(plan=plan, problem=problem)], record=host())
    assert yaml.safe_load(text) == json.loads(out)


def test_a_file_stands_for_the_record_but_not_for_the_state(run):
    other = host(holders=[{"device": VF0, "by": "pod tenants/old"}])
    code, out, err = run("n1", "-o", "wide", states=[state()], files=[other])
    assert (code, err, run.calls) == (0, "", [])
    assert (rows(out)[VF0]["HELD BY"], rows(out)[VF0]["VLAN"]) == ("pod tenants/db", "100")


@pytest.mark.parametrize("cluster", [[], ApiError(status=403, reason="Forbidden", message="no")])
def test_a_file_stands_for_a_node_that_the_cluster_lacks(run, cluster):
    code, out, err = run("x710-two-pools", "-o", "wide", "--host", HOSTS / "x710-two-pools.yaml", states=cluster)
    found = rows(out)
    assert (code, len(found)) == (0, 6)
    assert (found["0000:65:02.1"]["DRIVER"], found["0000:65:02.1"]["HELD BY"]) == ("vfio-pci", "pod tenants/virt-launcher-mail")
    assert found["0000:65:02.1"]["IOMMU GROUP"] == "81"
    assert ("only the given HostRecords are shown" in err) is bool(cluster)


def test_hosts_choose_the_nodes_that_are_shown(run):
    _, out, _ = run("-o", "json", "--host", HOSTS, states=[state()])
    names = [one["name"] for one in json.loads(out)["nodes"]]
    assert "n1" not in names
    assert set(names) == {yaml.safe_load(path.read_text())["metadata"]["name"] for path in HOSTS.iterdir()}


@pytest.mark.parametrize("path", sorted(HOSTS.iterdir()), ids=lambda path: path.stem)
def test_every_function_of_a_host_is_shown(run, path):
    record = parse_record(path.read_text(), path.name)
    _, out, _ = run("-o", "json", "--host", path)
    found = functions(out)
    shown = [*found, *(vf["address"] for one in found.values() for vf in one["vfs"])]
    assert {one.address for one in record.pci_devices if one.class_[:4] in ("0200", "0207")} <= set(shown)
    assert len(shown) == len(set(shown))


def test_a_driver_that_a_record_does_not_know_is_unknown(run):
    _, out, _ = run("-o", "json", "--host", HOSTS / "half-known.yaml")
    found = functions(out)
    assert "driver" not in found["0000:65:00.1"]
    assert [("driver" in vf, "iommuGroup" in vf, vf["nodedev"]) for vf in found["0000:65:00.0"]["vfs"]] == [
        (False, False, "pci_0000_65_02_0"),
        (False, False, "pci_0000_65_02_1"),
    ]


def test_a_function_that_could_not_be_read_has_an_unknown_group(run):
    record = host(errors={f"device:{VF1}": "EIO"})
    _, out, _ = run("n1", "-o", "wide", states=[state()], record=record)
    assert [rows(out)[address]["IOMMU GROUP"] for address in (PF, VF0, VF1)] == ["34", "50", "-"]


def test_links_that_could_not_be_read_leave_addresses_unknown(run):
    record = host(errors={"links": "EMSGSIZE"}, links=[])
    _, out, _ = run("n1", "-o", "wide", states=[state()], record=record)
    found = rows(out)
    assert [(found[one]["MAC"], found[one]["VLAN"], found[one]["NODEDEV"]) for one in (PF, VF0)] == [
        ("-", "", "pci_0000_0b_00_0"),
        ("-", "-", "pci_0000_0b_10_0"),
    ]


def test_vfs_that_are_not_in_the_record_are_shown(run):
    _, out, _ = run("n1", "-o", "wide", states=[state(numVfs=3)], record=host())
    found = rows(out)["0000:0b:10.4"]
    assert found | UNKNOWN == found
    assert (found["VF"], found["DRIVER"]) == ("2", "-")


def test_addresses_that_no_stride_gives_are_shown(run):
    _, out, _ = run("-o", "wide", "--host", HOSTS / "s390x-pci-domains.yaml")
    assert rows(out)["0112:00:00.0"]["NODEDEV"] == "pci_0112_00_00_0"


def test_a_nic_in_switchdev_mode_has_the_address_of_its_uplink(run):
    _, out, _ = run("-o", "wide", "--host", HOSTS / "representors.yaml")
    assert rows(out)["0000:0b:00.0"]["MAC"] == "02:00:00:00:00:02"


def test_an_address_that_the_state_lacks_is_unknown(run):
    _, out, _ = run("n1", "-o", "wide", states=[state(firstVf="")], record=host())
    assert rows(out)["-"]["HELD BY"] == "-"


@pytest.mark.parametrize(
    ("arguments", "files", "message"),
    [
        (["n2"], [], "node n2 has no NodeNicState; `kubectl get nicst` lists those that have one"),
        (["n2"], [host()], "node n2 has no NodeNicState; give its HostRecord with --host"),
        (["n1"], [host(metadata={"name": "node1"})], "node n1: no given HostRecord has this name: correct its metadata.name"),
        ([], [host(), host()], "HostRecord n1: the same host is given twice: remove one of them"),
        ([], [node_state()], "0.yaml: 1 objects there are no HostRecord"),
        ([], [host(speed=1)], "0.yaml:1: HostRecord n1: the document: Object contains unknown field `speed`"),
    ],
)
def test_a_wrong_name_or_file_is_an_error(run, arguments, files, message):
    code, _, err = run(*arguments, "-o", "wide", states=[state()], files=files)
    assert code == 2
    assert message in err


def test_a_malformed_state_is_told_with_its_remedy(run):
    code, _, err = run("n1", "-o", "wide", states=[state(numVfs="many")])
    assert code == 2
    assert "its agent writes it again" in err


def test_a_node_with_many_vfs_has_a_row_for_each(run):
    pfs = [
        state(numVfs=64, firstVf=f"0000:{bus:02x}:10.0", pciAddress=f"0000:{bus:02x}:00.0")["status"]["pfs"][0]
        for bus in range(8)
    ]
    made = state()
    made["status"]["pfs"] = pfs
    code, out, _ = run("n1", "-o", "wide", states=[made])
    assert (code, len(out.splitlines())) == (0, 1 + 8 * 65)
