"""Which records are refused, with path and remedy, and what a recorded host answers."""

import asyncio
import errno
import pathlib

import msgspec
import pytest
import yaml

from vmnic.host.client import LocalHost
from vmnic.host.linux import LinuxFiles
from vmnic.host.ops import ReadChannels, ReadEswitchMode, ReadFile, ReadLinks, ReadUnicast, ReadVfs, WriteFile
from vmnic.host.ports import Host
from vmnic.inspection.host_snapshot import read_snapshot
from vmnic.records.anonymise import anonymise
from vmnic.records.document import RecordFileError, parse_record, read_record_file, write_record
from vmnic.records.record import RecordError, record_schema, to_record
from vmnic.records.recorded_host import RecordedHost, virtual_functions
from vmnic.records.recorder import record_host
from vmnic.simhost.from_record import spec_of
from vmnic.simhost.host import SimHost
from vmnic.simhost.spec import ImpossibleHostError, parse_host
from vmnic.simhost.tree import Directory, Link

HOSTS = pathlib.Path(__file__).parents[2] / "hosts"
PF = """{address: "0000:0b:00.0", vendor: "8086", device: "10c9", class: "020000", driver: igb, iommuGroup: 3,
  sriov: {totalVfs: 7, numVfs: 1, driversAutoprobe: true}, virtualFunctions: ["0000:0b:10.0"]}"""
VF = """{address: "0000:0b:10.0", vendor: "8086", device: "10ca", class: "020000", driver: "", physicalFunction: "0000:0b:00.0"}"""
HEAD = "apiVersion: cli.vmnic.dev/v1alpha1\nkind: HostRecord\nmetadata: {name: n1}\n"


def record_of(*, devices=(PF, VF), links=(), rest=""):
    lists = "".join(f"{key}: [{', '.join(found)}]\n" for key, found in (("pciDevices", devices), ("links", links)))
    return to_record(yaml.safe_load(f"{HEAD}{lists}{rest}"))


def link(**fields):
    return str({"index": 2, "name": "ens1f0", "parent": "0000:0b:00.0"} | fields).replace("True", "true")


def changed(text, **fields):
    return str(yaml.safe_load(text) | fields)


def without(text, *names):
    return str({key: value for key, value in yaml.safe_load(text).items() if key not in names})


REFUSED = [
    ({"rest": "hosts: {}"}, "the document: Object contains unknown field `hosts`"),
    ({"devices": [changed(PF, speed=1)]}, "pciDevices[0]: Object contains unknown field `speed`"),
    ({"devices": [changed(PF, vendor=8086)]}, "quote it"),
    ({"devices": [changed(PF, vendor="80861")]}, "pciDevices[0].vendor"),
    ({"devices": [without(PF, "class")]}, "missing required field `class`"),
    ({"devices": [changed(PF, **{"class": "0200"})]}, "pciDevices[0].class"),
    ({"devices": [PF, VF, VF]}, "pciDevices[2].address: 0000:0b:10.0 is also the address of pciDevices[1]"),
    ({"links": [link(), link(name="b")]}, "links[1].index"),
    ({"links": [link(), link(index=3)]}, "links[1].name"),
    ({"links": [link(parent="0000:0b:00.7")]}, "links[0].parent: 0000:0b:00.7 is no device in pciDevices: add it"),
    ({"links": [link(parent="0000:0b:10.0")]}, "links[0].parent: 0000:0b:10.0 has no driver"),
    ({"links": [link(master="bond0")]}, "links[0].master: bond0 is no link"),
    ({"links": [link(master=9)]}, "links[0].master: 9 is no link"),
    ({"links": [link(lower="eth9")]}, "links[0].lower: eth9 is no link"),
    ({"links": [link(master="ens1f0")]}, "links[0].master: it names the link itself"),
    ({"links": [link(vfs=[{"index": 1}])]}, "links[0].vfs[0].index: VF 1 does not exist"),
    ({"links": [link(vfs=[{"index": 0}, {"index": 0}])]}, "links[0].vfs[1].index"),
    ({"links": [str({"index": 4, "name": "br0", "vfs": [{"index": 0}]})]}, "links[0].vfs"),
    ({"links": [link(type="token-ring")]}, "links[0].type"),
    ({"links": [link(name="a/b")]}, "links[0].name"),
    ({"links": [link(mtu="1500")]}, "links[0].mtu"),
    ({"devices": [changed(PF, sriov={"numVfs": 0}), VF]}, "virtualFunctions: 1 addresses are given, but sriov.numVfs is 0"),
    ({"devices": [changed(PF, sriov={"totalVfs": 0, "numVfs": 1}), VF]}, "pciDevices[0].sriov.numVfs: 1 is more than totalVfs"),
    ({"devices": [without(PF, "sriov"), VF]}, "no sriov block"),
    ({"devices": [PF, changed(VF, physicalFunction="0000:0c:00.0")]}, "physicalFunction: 0000:0c:00.0 is no device"),
    (
        {"devices": [PF, without(VF, "physicalFunction")]},
        "virtualFunctions[0]: 0000:0b:10.0 has another physicalFunction (none)",
    ),
    ({"devices": [changed(PF, virtualFunctions=[], sriov={"numVfs": 0}), VF]}, "does not list 0000:0b:10.0"),
    (
        {"devices": [changed(PF, sriov={"numVfs": 2}, virtualFunctions=["0000:0b:10.0"] * 2), VF]},
        "virtualFunctions[1]: 0000:0b:10.0 is given twice",
    ),
    ({"rest": "host: {iommu: false}"}, "pciDevices[0].iommuGroup: the function is in an IOMMU group, but host.iommu is false"),
    ({"rest": 'iommuGroups: [{id: 4, devices: ["0000:0b:00.0"]}]'}, "has another iommuGroup (3)"),
    ({"rest": 'iommuGroups: [{id: 3, devices: ["0000:00:1c.0"]}]'}, "group 3 in iommuGroups does not contain 0000:0b:00.0"),
    ({"rest": "iommuGroups: [{id: 3, devices: []}]"}, "iommuGroups[0].devices"),
    (
        {"rest": 'iommuGroups: [{id: 3, devices: ["0000:0b:00.0"]}, {id: 3, devices: ["0000:0b:00.0"]}]'},
        "iommuGroups[1].id: 3 is also the id",
    ),
    ({"rest": "host: {modules: {loaded: [tun], builtIn: [tun]}}"}, "host.modules: tun is both in loaded and in builtIn"),
    ({"rest": "errors: {link: EIO}"}, "errors.link: no read has this name"),
    ({"rest": "errors: {'vfs:ens9': EIO}"}, "errors.vfs:ens9: ens9 is not in the record"),
    ({"rest": "errors: {links: EWRONG}"}, "errors.links: EWRONG is no errno"),
    ({"rest": "owners: {foreign: {'0000:0b:00.0': systemd}}"}, "owners.foreign"),
]


@pytest.mark.parametrize(("parts", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_true_is_refused_with_its_path(parts, message):
    with pytest.raises(RecordError) as refused:
        record_of(**parts)
    assert message in str(refused.value)
    # Path, fault and remedy.
    assert str(refused.value).count(": ") >= 2


def test_a_consistent_record_is_accepted():
    assert record_of(links=[link(), str({"index": 7, "name": "br0", "kind": "bridge"})], rest="errors: {links: EMSGSIZE}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "the document: Expected `object`, got `array`"),
        (HEAD + "---\n" + HEAD, "2 documents"),
        (HEAD + "host: {kernel: [", "line"),
        (HEAD.replace("v1alpha1", "v2"), "apiVersion"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, text, message):
    path = tmp_path / "host.yaml"
    path.write_text(text)
    with pytest.raises(RecordFileError, match=str(path)) as refused:
        read_record_file(path)
    assert message in str(refused.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    for name in ("a", "b"):
        with pytest.raises(RecordFileError, match=str(tmp_path / name)):
            read_record_file(tmp_path / name)


@pytest.mark.parametrize("path", sorted(HOSTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_record_is_read_as_it_was_written(path):
    record = read_record_file(path)
    assert parse_record(write_record(record), "text") == record


def test_text_that_looks_like_a_number_stays_text():
    record = record_of(
        devices=[changed(PF, vendor="1e10", device="0000"), VF], links=[link(name="no", altNames=["12:34", "1e3"])]
    )
    assert parse_record(write_record(record), "text") == record


def test_the_schema_describes_all_fields_without_python_patterns():
    schema = record_schema()
    assert {"HostRecord", "PciDevice", "LinkRecord", "IommuGroup", "RecordedHolder"} <= schema["$defs"].keys()
    assert r"\Z" not in str(schema)


def recorded(host, name="n1", holders=()):
    return asyncio.run(record_host(LocalHost(host), name, dict(holders)))


@pytest.mark.parametrize("path", sorted(set(HOSTS.glob("*.yaml")) - {HOSTS / "half-known.yaml"}), ids=lambda path: path.stem)
def test_a_recorded_host_gives_the_same_record_again(path):
    record = read_record_file(path)
    again = recorded(RecordedHost(record))
    for field in ("pci_devices", "iommu_groups", "owners", "errors"):
        assert getattr(again, field) == getattr(record, field)
    assert {link.name: link.addresses for link in again.links} == {link.name: link.addresses for link in record.links}


def test_a_function_of_another_class_with_a_link_is_recorded():
    modem = {"address": "0000:0b:00.0", "vendor": "17cb", "device": "0308", "class": "ff0000", "driver": "mhi-pci"}
    record = record_of(devices=[str(modem)], links=[link(type=65534)])
    assert recorded(RecordedHost(record)).pci_devices == record.pci_devices


SIMULATED = """
bootId: 3e2f2f6c-0a0b-4c4d-8e8f-0123456789ab
pfs:
- {address: "0000:0b:00.0", profile: "82576", name: ens1f0, vfs: 7, altNames: [enp11s0f0], addresses: [192.0.2.1/24],
   defaultRoute: true, mac: "52:54:00:00:00:07"}
- {address: "0000:0c:00.0", profile: X710, name: ens2f0, vfs: 3, vfDriver: vfio-pci, numaNode: 1, mtu: 9000}
- {address: "0000:0d:00.0", profile: X540, name: ens3f0, up: false, noVfSpace: true}
"""


def test_a_simulated_host_starts_from_its_own_record():
    record = recorded(SimHost(parse_host(SIMULATED)))
    assert recorded(SimHost(spec_of(record))) == record
    assert recorded(RecordedHost(record)) == record


def snapshot_of(host):
    return asyncio.run(read_snapshot(LocalHost(host), leave_out=()))


def test_readers_see_a_recorded_host_as_the_real_one():
    host = SimHost(parse_host(SIMULATED))
    found, expected = snapshot_of(RecordedHost(recorded(host))), snapshot_of(host)
    for field in ("boot_id", "host", "pfs", "records", "unreadable"):
        assert getattr(found, field) == getattr(expected, field)


@pytest.mark.parametrize("name", ["desktop-without-sriov", "mlx5-switchdev-bond"])
def test_what_cannot_be_simulated_is_refused_by_its_field(name):
    with pytest.raises(ImpossibleHostError, match=r"pciDevices\[|links\["):
        spec_of(read_record_file(HOSTS / f"{name}.yaml"))


def refusal(host, op):
    try:
        host.perform(op)
    except OSError as error:
        return error.errno
    return None


def test_a_recorded_host_answers_as_the_kernel_did():
    host = RecordedHost(read_record_file(HOSTS / "links-too-long.yaml"))
    assert refusal(host, ReadVfs("ens1f0")) == errno.EMSGSIZE
    assert host.perform(ReadVfs("ens2f0")) == ()
    assert host.perform(ReadUnicast("ens1f0")) == ()
    assert refusal(host, ReadUnicast("eth9")) == errno.ENODEV
    assert refusal(host, ReadChannels("ens1f0")) == errno.EOPNOTSUPP
    assert refusal(host, ReadEswitchMode("0000:0b:00.0")) == errno.EOPNOTSUPP
    assert refusal(host, ReadFile("/sys/bus/pci/devices/0000:0b:00.0/nothing")) == errno.ENOENT


def test_a_recorded_host_cannot_be_changed():
    host = RecordedHost(record_of())
    assert refusal(host, WriteFile("/sys/bus/pci/devices/0000:0b:00.0/sriov_numvfs", "2")) == errno.EROFS


def test_a_refused_dump_of_links_fails_the_whole_host():
    host = RecordedHost(record_of(rest="errors: {links: EMSGSIZE}"))
    assert refusal(host, ReadLinks()) == errno.EMSGSIZE


@pytest.mark.parametrize("field", ["driver", "totalVfs", "driversAutoprobe"])
def test_a_field_that_is_unknown_is_named(field):
    sriov = {key: value for key, value in yaml.safe_load(PF)["sriov"].items() if key != field}
    pf = changed(without(PF, field), sriov=sriov)
    snapshot = snapshot_of(RecordedHost(record_of(devices=[pf, VF])))
    assert f"{field} is not recorded" in str(snapshot.unreadable["0000:0b:00.0"])


def test_addresses_follow_from_offset_and_stride():
    known = {"totalVfs": 7, "numVfs": 3, "offset": 128, "stride": 2}
    pf = record_of(devices=[changed(without(PF, "virtualFunctions"), sriov=known)]).pci_devices[0]
    assert virtual_functions(pf) == ("0000:0b:10.0", "0000:0b:10.2", "0000:0b:10.4")
    unknown = record_of(devices=[changed(PF, sriov={"numVfs": 3}), VF]).pci_devices[0]
    assert virtual_functions(unknown) is None


def test_a_mounted_sys_gives_the_same_functions(tmp_path):
    host = SimHost(parse_host(SIMULATED))
    for path in ("/sys/bus/pci/devices", "/sys/devices", "/sys/kernel/iommu_groups", "/sys/class"):
        write_tree(host, path, tmp_path)
    mixed = Host(files=LinuxFiles(str(tmp_path)), links=host, modules=host)
    found, expected = recorded(mixed), recorded(host)
    for field in ("pci_devices", "links", "iommu_groups"):
        assert getattr(found, field) == getattr(expected, field)


def write_tree(host, path, root):
    """Copy a directory of a host without following links."""
    node = host.look(path)
    target = root / path.lstrip("/")
    if isinstance(node, Link):
        target.symlink_to(node.target)
    elif isinstance(node, Directory):
        target.mkdir(parents=True, exist_ok=True)
        for name in node.entries():
            write_tree(host, f"{path}/{name}", root)
    else:
        try:
            target.write_text(f"{host.perform(ReadFile(path))}\n")
        except OSError:
            # Write-only files, and those that the kernel refuses to read now.
            return


def test_an_anonymous_record_has_the_same_shape():
    record = read_record_file(HOSTS / "mlx5-switchdev-bond.yaml")
    made = to_record(msgspec.to_builtins(anonymise(record)))
    before = {link.index: link for link in record.links}
    for link in made.links:
        assert (link.phys_port_name, link.kind, link.parent) == tuple(
            getattr(before[link.index], name) for name in ("phys_port_name", "kind", "parent")
        )
    assert made.pci_devices == record.pci_devices
    assert made.iommu_groups == record.iommu_groups
    names = {link.index: link.name for link in made.links}
    assert {link.master for link in made.links if link.index in (2, 3)} == {names[20]}
    assert "tenants" not in write_record(made)
    assert "ens3f0" not in write_record(made)


def test_equal_values_stay_equal_in_an_anonymous_record():
    mac = "b8:ce:f6:00:00:01"
    links = [
        link(mac=mac, permanentMac=mac, altNames=["enxb8cef6000001"], addresses=["192.0.2.1/24"]),
        str({"index": 3, "name": "bond0", "kind": "bond", "mac": mac, "addresses": ["192.0.2.1/24", "2001:db8:1::7/64"]}),
    ]
    holders = [
        {"device": "ens1f0Mvp19", "resource": "macvtap.network.kubevirt.io/ens1f0", "by": "pod a/b"},
        {"device": "0000:0b:10.0", "resource": "intel.com/fast", "by": "pod a/b"},
        {"device": "3", "by": "domain b"},
    ]
    record = record_of(links=links, rest=f"holders: {holders}\nerrors: {{'vfs:ens1f0': EMSGSIZE}}\n")
    made = to_record(msgspec.to_builtins(anonymise(record)))
    first, second = made.links
    assert first.mac == first.permanent_mac == second.mac != mac
    assert first.alt_names == (f"enx{first.mac.replace(':', '')}",)
    assert first.addresses == second.addresses[:1] != ("192.0.2.1/24",)
    assert made.holders[0].device == f"{first.name}Mvp19"
    assert made.holders[0].resource == f"macvtap.network.kubevirt.io/{first.name}"
    assert made.holders[0].by == made.holders[1].by != "pod a/b"
    assert [one.device for one in made.holders[1:]] == ["0000:0b:10.0", "3"]
    assert made.errors == {f"vfs:{first.name}": "EMSGSIZE"}
