"""Forty domains as people and programs write them: read, decided, written anew, and read again."""

import pathlib

import pytest
import yaml
from lxml import etree

from tests.builders.decide import collect
from tests.builders.vm import node_state, policy, pool
from vmnic.cli.decide import decide_all
from vmnic.libvirt.domain import DomainError, read_domain
from vmnic.libvirt.functions import FreeFunctions
from vmnic.libvirt.gather import gather_domain
from vmnic.libvirt.rewrite import rewrite_domain
from vmnic.nodes.addresses import vf_address

HERE = pathlib.Path(__file__).parent
FILES = sorted((HERE / "domains").glob("*.xml"))
EXPECTED = yaml.safe_load((HERE / "expected.yaml").read_text())
DATAPATHS = ["emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"]


def told(nic):
    return f"{nic.name} {nic.present.datapath} {nic.present.model or '-'} {nic.present.queues}"


def canonical(tree):
    """The XML without differences that mean nothing."""
    return etree.tostring(tree, method="c14n2", strip_text=True)


def others(text):
    """All of a domain but its NICs."""
    tree = etree.ElementTree(etree.fromstring(text))
    for element in tree.getroot().findall("devices/interface") + tree.getroot().findall("devices/hostdev"):
        element.getparent().remove(element)
    return canonical(tree)


def decided(text, *policies):
    """Decide one domain beside a pool of VFs and one of whole NICs."""
    whole = node_state("n2", pool="whole", vfs=0, function="Physical")
    whole["spec"]["pfs"][0]["pciAddress"] = whole["status"]["pfs"][0]["pciAddress"] = "0000:0d:00.0"
    objects = collect(*policies, pool(), pool("whole", function="Physical"), node_state(), whole)
    objects.add_domain(text)
    found = decide_all(objects, offline=True)
    (domain,) = objects.domains.values()
    return found.vms[0], rewrite_domain(domain, found.vms[0], found.functions)


def wanting(datapath):
    return policy(datapaths=[datapath], existing="Immediately", sriov={"pool": "fast"}, passthrough={"pool": "whole"})


def test_there_are_forty():
    assert {path.stem for path in FILES} == set(EXPECTED)
    assert len(FILES) == 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_domain_becomes_facts(path):
    vm, expected = gather_domain(read_domain(path.read_text())), EXPECTED[path.stem]
    assert [told(nic) for nic in vm.nics] == expected["nics"]
    assert (vm.guest_os, vm.running, vm.vcpus) == (expected["guest"], expected.get("running", False), expected["vcpus"])
    assert vm.memory_bytes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_without_a_change_the_domain_stays_as_it_is(path):
    _, after = decided(path.read_text(), policy(action="Audit"))
    assert canonical(etree.ElementTree(etree.fromstring(after))) == canonical(etree.parse(path))


@pytest.mark.parametrize("datapath", DATAPATHS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_new_domain_is_what_was_decided_and_nothing_else_is_touched(path, datapath):
    before = path.read_text()
    decision, after = decided(before, wanting(datapath))
    wanted = {nic.nic.name: (nic.wanted.datapath, nic.wanted.model, nic.wanted.queues) for nic in decision.nics}
    nics = {
        nic.name: (nic.present.datapath, nic.present.model, nic.present.queues)
        for nic in gather_domain(read_domain(after)).nics
    }
    assert nics == wanted
    assert others(after) == others(before)
    again, unchanged = decided(after, wanting(datapath))
    assert not [nic for nic in again.nics if nic.verdict == "Change"]
    assert unchanged == after


def nic_of(text):
    return etree.fromstring(text).find("devices/interface")


def test_a_vf_keeps_address_vlan_and_boot_order_and_loses_what_a_tap_device_has():
    _, after = decided((HERE / "domains/openvswitch.xml").read_text(), wanting("sriov"))
    nic = nic_of(after)
    assert (nic.get("type"), nic.get("managed")) == ("hostdev", "yes")
    assert [child.tag for child in nic] == ["mac", "source", "vlan"]
    assert dict(nic.find("source/address").attrib) == {
        "type": "pci",
        "domain": "0x0000",
        "bus": "0x0b",
        "slot": "0x10",
        "function": "0x0",
    }


def test_virtio_in_qemu_and_in_the_kernel_differ_by_the_drivers_name():
    before = (HERE / "domains/rhel-e1000e.xml").read_text()
    drivers = [nic_of(decided(before, wanting(name))[1]).find("driver").get("name") for name in ("virtio", "vhost")]
    assert drivers == ["qemu", "vhost"]


def test_an_emulated_nic_has_no_attribute_of_virtio():
    _, after = decided((HERE / "domains/tuned-host-offloads.xml").read_text(), wanting("emulated"))
    assert [child.tag for child in nic_of(after)] == ["mac", "source", "target", "model", "tune"]


def test_queues_are_capped_without_any_hook():
    rule = wanting("vhost")
    rule["spec"] |= {"multiqueue": {"mode": "Always", "maxQueues": 3}}
    assert nic_of(decided((HERE / "domains/debian-bridge.xml").read_text(), rule)[1]).find("driver").get("queues") == "3"


def test_comments_and_indentation_survive():
    before = (HERE / "domains/commented-by-hand.xml").read_text()
    _, after = decided(before, wanting("vhost"))
    assert "do not change the address" in after
    assert "kept in the repository of the department" in after
    assert "      <model type='virtio'/>".replace("'", '"') in after.replace("'", '"')


def test_a_vf_that_is_held_or_given_already_is_not_given_again():
    free = FreeFunctions(by_node={"n1": {"r": ["a", "b"]}, "n2": {"r": ["c", "d", "e"]}})
    assert free.take({"r": 3}) == {"r": ["c", "d", "e"]}
    assert (free.take({"r": 2}), free.take({"r": 1})) == ({"r": ["a", "b"]}, None)


def test_the_address_of_a_vf_follows_from_the_first_and_the_stride():
    assert [vf_address("0000:0b:10.0", 2, index) for index in (0, 3, 4)] == ["0000:0b:10.0", "0000:0b:10.6", "0000:0b:11.0"]
    assert vf_address("0000:0b:1f.6", 2, 1) == "0000:0c:00.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [("<domain", "line 1"), ("<network/>", "<network> is no libvirt domain"), ("<domain/>", "without a <name>")],
)
def test_what_is_no_domain_is_refused_in_words(text, words):
    with pytest.raises(DomainError, match=words):
        read_domain(text)


def test_nothing_outside_the_file_is_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("never")
    text = f'<!DOCTYPE domain [<!ENTITY x SYSTEM "file://{secret}">]><domain><name>a&x;</name></domain>'
    assert "never" not in read_domain(text).name
