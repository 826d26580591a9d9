"""The addresses of VFs and NICs that domains name and get."""

import pytest
from lxml import etree

from tests.builders.decide import collect
from tests.builders.vm import node_state, pool
from tests.unit.libvirt.test_carried import OS
from tests.unit.libvirt.test_domains import wanting
from vmnic.cli.files import read_files
from vmnic.cli.offline import decide_all
from vmnic.cli.plan import make_plan

BRIDGED = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"
TAGGED = "<interface type='bridge'><source bridge='br0'/><vlan><tag id='7'/></vlan><model type='virtio'/></interface>"
PCI = "<address {kind} domain='0x0000' bus='0x0b' slot='0x10' function='0x{function}'/>"


def vf(function, number="0x"):
    """Return a NIC that is a VF of the host."""
    address = PCI.format(kind="type='pci'", function=function)
    address = address if number == "0x" else address.replace("'0x0b'", "'11'").replace("'0x10'", "'16'")
    return f"<interface type='hostdev' managed='yes'><source>{address}</source></interface>"


def device(function):
    """Return a host device that is a VF of the host, as virt-manager writes it."""
    address = PCI.format(kind="", function=function)
    return f"<hostdev mode='subsystem' type='pci' managed='yes'><source>{address}</source></hostdev>"


USB = "<hostdev mode='subsystem' type='usb'><source><address bus='11' device='16'/></source></hostdev>"


def domain(name, *devices):
    return f"<domain>{OS}<name>{name}</name><devices>{''.join(devices)}</devices></domain>"


def plan(*domains, states=None, rule=None, vfs=None):
    """Plan domains that want VFs of one pool."""
    states = [node_state()] if states is None else states
    rule = rule or wanting("sriov", liveMigration="NotNeeded")
    objects = collect(rule, pool(**({"vf": vfs} if vfs else {})), *states)
    for text in domains:
        objects.add_xml(text)
    return make_plan(objects, decide_all(objects, offline=True), [])


def functions(vm):
    """Return bus, slot and function of each VF that the new XML of a domain names."""
    addresses = etree.fromstring(vm["domainXml"]).iterfind("devices/*/source/address")
    return [f"{one.get('bus')[2:]}:{one.get('slot')[2:]}.{one.get('function')[2:]}" for one in addresses]


def by_name(found):
    return {vm["name"]: vm for vm in found["vms"]}


@pytest.mark.parametrize("holder", [vf(0), vf(0, number=""), device(0)], ids=["interface", "decimal", "host device"])
def test_a_vf_that_a_domain_names_is_taken(holder):
    found = by_name(plan(domain("holder", holder), domain("wants", BRIDGED, BRIDGED)))
    assert len(functions(found["wants"])) == 2
    assert "0b:10.0" not in functions(found["wants"])


def test_a_usb_device_takes_no_vf():
    found = by_name(plan(domain("holder", USB), domain("wants", BRIDGED)))
    assert functions(found["wants"]) == ["0b:10.0"]


@pytest.mark.parametrize("second", [vf(0), vf(0, number=""), device(0)], ids=["interface", "decimal", "host device"])
def test_two_domains_with_one_vf_are_left_alone(second):
    one, two = domain("one", vf(0), BRIDGED), domain("two", second, BRIDGED)
    found = plan(one, two, domain("three", BRIDGED))
    vms = by_name(found)
    assert {nic["reason"] for name in ("one", "two") for nic in vms[name]["nics"]} == {"AddressTwice"}
    assert (vms["one"]["domainXml"], vms["two"]["domainXml"]) == (one, two)
    assert [nic["verdict"] for nic in vms["three"]["nics"]] == ["Change"]
    problems = [(one["object"], one["message"]) for one in found["problems"] if one["reason"] == "AddressTwice"]
    assert [name for name, _ in problems] == ["Domain/one", "Domain/two"]
    assert "domain two names 0000:0b:10.0 too" in problems[0][1]


def test_one_address_on_two_hosts_is_not_one_vf():
    found = plan(domain("one", vf(0)), domain("two", vf(0)), states=[node_state("n1"), node_state("n2")])
    assert [nic["verdict"] for vm in found["vms"] for nic in vm["nics"]] == ["Compliant", "Compliant"]


def test_a_change_without_known_addresses_is_blocked():
    text = domain("d", BRIDGED)
    (vm,) = plan(text, states=[])["vms"]
    (nic,) = vm["nics"]
    assert (nic["verdict"], nic["action"], nic["reason"]) == ("Blocked", "None", "CannotBeWritten")
    assert (nic["to"], vm["domainXml"]) == (nic["from"], text)
    assert nic["message"].startswith("no given node has 1 free function of vmnic.dev/fast with a known address: add")


def test_what_is_to_change_is_written():
    # The larger block of VFs stays free for the domain that needs it.
    states = [node_state("n1", vfs=7), node_state("n2", vfs=4)]
    found = by_name(plan(domain("a", *[BRIDGED] * 4), domain("b", *[BRIDGED] * 7), states=states))
    for vm in found.values():
        assert len(functions(vm)) == sum(nic["verdict"] == "Change" for nic in vm["nics"])
    assert len(functions(found["b"])) == 7


@pytest.mark.parametrize(("directory", "expected"), [("n1", "0b"), ("n2", "0d"), ("domains", "0b")])
def test_a_directory_with_the_name_of_a_node_is_the_host(directory, expected, tmp_path):
    other = node_state("n2")
    for part in (other["spec"], other["status"]):
        part["pfs"][0]["pciAddress"] = "0000:0d:00.0"
    other["status"]["pfs"][0]["firstVf"] = "0000:0d:10.0"
    (tmp_path / directory).mkdir()
    (tmp_path / directory / "d.xml").write_text(domain("d", BRIDGED))
    objects = read_files([str(tmp_path)], recursive=True)
    given = collect(wanting("sriov", liveMigration="NotNeeded"), pool(), node_state(), other).overlaid(objects)
    (vm,) = make_plan(given, decide_all(given, offline=True), [])["vms"]
    assert functions(vm) == [f"{expected}:10.0"]


@pytest.mark.parametrize(
    ("nic", "vfs", "expected"),
    [(BRIDGED, {"vlan": 100}, ["100"]), (TAGGED, {"vlan": 100}, ["7"]), (BRIDGED, {"vlan": 0}, []), (BRIDGED, None, [])],
    ids=["pool", "nic", "none", "unset"],
)
def test_a_vf_gets_the_vlan_of_its_pool(nic, vfs, expected):
    (vm,) = plan(domain("d", nic), vfs=vfs)["vms"]
    assert functions(vm)
    assert [tag.get("id") for tag in etree.fromstring(vm["domainXml"]).iterfind("devices/interface/vlan/tag")] == expected


@pytest.mark.parametrize("datapath", ["emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"])
def test_a_failover_pair_stays(datapath):
    pair = BRIDGED.replace("<model", "<teaming type='persistent'/><alias name='ua-a'/><model")
    text = domain("d", pair, vf(0).replace("<source>", "<teaming type='transient' persistent='ua-a'/><source>"))
    (vm,) = plan(text, rule=wanting(datapath))["vms"]
    assert ([nic["reason"] for nic in vm["nics"]], vm["domainXml"]) == (["FailoverPair"] * 2, text)
