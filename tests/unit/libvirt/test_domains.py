"""Forty domains as people and programs write them, read, decided, rewritten and read again."""

import contextlib
import pathlib
import time

import msgspec
import pytest
import yaml
from lxml import etree

from tests.builders.decide import collect
from tests.builders.vm import node_state, policy, pool
from vmnic.cli.offline import decide_all
from vmnic.libvirt.domain import MOST_CHARS, DomainError, read_domain
from vmnic.libvirt.functions import FreeFunctions, free_functions
from vmnic.libvirt.gather import gather_domain
from vmnic.libvirt.network import read_libvirt_network
from vmnic.libvirt.rewrite import rewrite_domain
from vmnic.nodes.addresses import vf_address

HERE = pathlib.Path(__file__).parent
FILES = sorted((HERE / "domains").glob("*.xml"))
NETWORKS = {path.stem: read_libvirt_network(etree.parse(path).getroot()) for path in sorted((HERE / "networks").glob("*.xml"))}
EXPECTED = yaml.safe_load((HERE / "expected.yaml").read_text())
TRUNK = "<vlan trunk='yes'>"
ACCEPTED = ["GuestMtuChanges", "PropertyNotCarried/vlan"]
DATAPATHS = ["emulated", "virtio", "vhost", "macvtap", "sriov", "passthrough"]


def told(nic):
    return f"{nic.name} {nic.present.datapath} {nic.present.model or '-'} {nic.present.queues}"


def canonical(tree):
    """Return the XML without insignificant differences."""
    return etree.tostring(tree, method="c14n2", strip_text=True)


def others(text):
    """Return a domain without its NICs."""
    tree = etree.ElementTree(etree.fromstring(text))
    for element in tree.getroot().findall("devices/interface") + tree.getroot().findall("devices/hostdev"):
        element.getparent().remove(element)
    return canonical(tree)


def facts_of(text):
    """Read the facts of a domain, with the networks of libvirt that its NICs are on."""
    return gather_domain(read_domain(text), networks=NETWORKS)


def decided(text, *policies, networks=NETWORKS, more=()):
    """Decide one domain, with a pool of VFs and one of whole NICs."""
    whole = node_state("n2", pool="whole", vfs=0, function="Physical")
    whole["spec"]["pfs"][0]["pciAddress"] = whole["status"]["pfs"][0]["pciAddress"] = "0000:0d:00.0"
    objects = collect(*policies, pool(), pool("whole", function="Physical"), node_state(), whole, *more)
    objects.add_xml(text)
    objects.libvirt_networks |= networks
    found = decide_all(objects, offline=True)
    (domain,) = objects.domains.values()
    return found.vms[0], rewrite_domain(domain, found.vms[0], found.functions, networks)


def rewritten(domain):
    """Parse and write a domain as a change does."""
    return etree.tostring(domain.copied().tree, encoding="unicode")


def wanting(datapath, **spec):
    return policy(datapaths=[datapath], existing="Immediately", sriov={"pool": "fast"}, passthrough={"pool": "whole"}, **spec)


def test_there_are_forty_domains():
    assert {path.stem for path in FILES} == set(EXPECTED)
    assert len(FILES) == 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_facts_of_a_domain_are_read(path):
    vm, expected = facts_of(path.read_text()), EXPECTED[path.stem]
    assert [told(nic) for nic in vm.nics] == expected["nics"]
    assert (vm.guest_os, vm.running, vm.vcpus) == (expected["guest"], expected.get("running", False), expected["vcpus"])
    assert vm.memory_bytes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_domain_without_a_change_is_equivalent(path):
    _, after = decided(path.read_text(), policy(action="Audit"))
    assert canonical(etree.ElementTree(etree.fromstring(after))) == canonical(etree.parse(path))


MORE_HOSTS = {"two hosts": (), "three hosts": (node_state("n0", vfs=4),)}


@pytest.mark.parametrize("datapath", DATAPATHS)
@pytest.mark.parametrize("hosts", MORE_HOSTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_second_plan_changes_nothing(path, hosts, datapath):
    more = MORE_HOSTS[hosts]
    _, after = decided(path.read_text(), wanting(datapath, accept=ACCEPTED), more=more)
    again, unchanged = decided(after, wanting(datapath, accept=ACCEPTED), more=more)
    assert not [nic for nic in again.nics if nic.verdict == "Change"]
    assert unchanged == after


@pytest.mark.parametrize("datapath", DATAPATHS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_rewrite_changes_only_the_nics_as_decided(path, datapath):
    before = path.read_text()
    decision, after = decided(before, wanting(datapath))
    wanted = {nic.nic.name: (nic.wanted.datapath, nic.wanted.model, nic.wanted.queues) for nic in decision.nics}
    nics = {nic.name: (nic.present.datapath, nic.present.model, nic.present.queues) for nic in facts_of(after).nics}
    assert nics == wanted
    assert others(after) == others(before)


def with_nic(children, kind="bridge"):
    """Return a domain with one virtio NIC."""
    return f"<domain><name>d</name><devices><interface type='{kind}'><model type='virtio'/>{children}</interface></devices></domain>"


def nic_of(text):
    return etree.fromstring(text).find("devices/interface")


def test_a_vf_keeps_mac_and_vlan_but_no_settings_of_a_tap_device():
    before = (HERE / "domains/openvswitch.xml").read_text()
    _, after = decided(before, wanting("sriov", accept=ACCEPTED))
    nic = nic_of(after)
    # A VF has one VLAN, so a trunk whose loss is accepted does not stay.
    assert [child.tag for child in nic] == ["mac", "source"]
    one_tag = before.replace(TRUNK, "<vlan>").replace(" nativeMode='untagged'", "").replace("<tag id='47'/>", "")
    _, after = decided(one_tag, wanting("sriov", accept=ACCEPTED))
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


def test_virtio_and_vhost_differ_by_the_driver_name():
    before = (HERE / "domains/rhel-e1000e.xml").read_text()
    drivers = [nic_of(decided(before, wanting(name))[1]).find("driver").get("name") for name in ("virtio", "vhost")]
    assert drivers == ["qemu", "vhost"]


def test_an_emulated_nic_has_no_virtio_settings():
    _, after = decided((HERE / "domains/tuned-host-offloads.xml").read_text(), wanting("emulated"))
    assert [child.tag for child in nic_of(after)] == ["mac", "source", "target", "model", "tune", "coalesce"]


def test_queues_are_capped_without_a_hook():
    rule = wanting("vhost")
    rule["spec"] |= {"multiqueue": {"mode": "Always", "maxQueues": 3}}
    assert nic_of(decided((HERE / "domains/debian-bridge.xml").read_text(), rule)[1]).find("driver").get("queues") == "3"


def test_comments_and_indentation_survive():
    before = (HERE / "domains/commented-by-hand.xml").read_text()
    _, after = decided(before, wanting("vhost"))
    assert "do not change the address" in after
    assert "kept in the repository of the department" in after
    assert "      <model type='virtio'/>".replace("'", '"') in after.replace("'", '"')


def test_a_taken_vf_is_not_given_again():
    free = FreeFunctions(by_node={"n1": {"r": ["a", "b"]}, "n2": {"r": ["c", "d", "e"]}})
    assert free.take({"r": 3}) == {"r": ["c", "d", "e"]}
    assert (free.take({"r": 2}), free.take({"r": 1})) == ({"r": ["a", "b"]}, None)


@pytest.mark.parametrize(("address", "given"), [("0000:0d:00.0", ["0000:0d:00.0"]), ("0d:00.0' x='", []), ("x", [])])
def test_a_malformed_address_is_not_given_out(address, given):
    objects = collect(pool("whole", function="Physical"), node_state("n1", pool="whole", vfs=0, function="Physical"))
    (state,) = objects.node_states.values()
    # The decoder refuses such an address already. This is a second check before it reaches the XML.
    spec = msgspec.structs.replace(state.spec, pfs=[msgspec.structs.replace(state.spec.pfs[0], pci_address=address)])
    status = msgspec.structs.replace(state.status, pfs=[msgspec.structs.replace(state.status.pfs[0], pci_address=address)])
    found = free_functions(objects.pools, {"n1": msgspec.structs.replace(state, spec=spec, status=status)})
    assert found.by_node["n1"]["vmnic.dev/whole"] == given


def test_vf_addresses_follow_from_first_address_and_stride():
    assert [vf_address("0000:0b:10.0", 2, index) for index in (0, 3, 4)] == ["0000:0b:10.0", "0000:0b:10.6", "0000:0b:11.0"]
    assert vf_address("0000:0b:1f.6", 2, 1) == "0000:0c:00.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [("<domain", "line 1"), ("<pool/>", "<pool> is not a libvirt domain"), ("<domain/>", "without a <name>")],
)
def test_text_that_is_not_a_domain_is_refused(text, words):
    with pytest.raises(DomainError, match=words):
        read_domain(text)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>a&x;</name></domain>',
        '<!DOCTYPE domain SYSTEM "http://example.org/x.dtd"><domain><name>a</name></domain>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE d [<!ENTITY a "x">]><domain><name>&a;</name></domain>',
    ],
    ids=["an entity that is a file", "a DTD elsewhere", "another encoding"],
)
def test_a_document_type_is_refused_before_parsing(text):
    with pytest.raises(DomainError, match="<!DOCTYPE is not read"):
        read_domain(text)


def with_vcpu(element):
    return f"<domain><name>d</name>{element}<devices/></domain>"


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (with_vcpu(f"<vcpu>{DIGITS}</vcpu>"), "domain d, line 1: <vcpu>999"),
        (with_vcpu(f"<vcpu current='{DIGITS}'>4</vcpu>"), "<vcpu current='999"),
        (with_vcpu("<vcpu>0</vcpu>"), "<vcpu>0</vcpu> is not a number from 0 to 65535: correct it"),
        (with_vcpu(f"<memory>{DIGITS}</memory>"), "<memory>999"),
        (with_vcpu("<memory>much</memory>"), "<memory>much</memory> is not a number"),
        (with_nic("<driver queues='257'/>"), "<driver queues='257'> is not a number from 0 to 256"),
        (with_nic(f"<driver queues='{DIGITS}'/>"), "<driver queues='999"),
        (with_nic("<source><address bus='0x100'/></source>", "hostdev"), "<address bus='0x100'> is not a number from 0 to 255"),
        (with_nic("<source><address bus='1' slot='32'/></source>", "hostdev"), "<address slot='32'> is not a number"),
        (with_nic("<source><address bus='1' function='8'/></source>", "hostdev"), "<address function='8'> is not a number"),
        (with_nic(f"<source><address bus='{DIGITS}'/></source>", "hostdev"), "<address bus='999"),
    ],
)
def test_a_number_beyond_its_range_names_domain_and_element(text, words):
    with pytest.raises(DomainError) as caught:
        gather_domain(read_domain(text))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("unit", ["KiB", "furlongs"])
def test_memory_in_an_unknown_unit_is_unknown(unit):
    text = with_vcpu(f"<memory unit='{unit}'>1024</memory>")
    assert gather_domain(read_domain(text)).memory_bytes == {"KiB": 2**20}.get(unit)


BOUND_S = 0.05


@pytest.mark.parametrize(
    "text",
    [
        "<domain><name>d</name>" + "<a/>" * 19_000 + "</domain>",
        "<domain " + " ".join(f"a{number}=''" for number in range(19_000)) + "><name>d</name></domain>",
        "<domain " + " ".join(f"xmlns:a{number}='u{number}'" for number in range(250)) + "><name>d</name>"
        + "".join(f"<a{number % 250}:b/>" for number in range(18_000)) + "</domain>",
        "<a>" * 9_000 + "</a>" * 9_000,
        "<domain><name>d</name>" + "&#65;" * 100_000 + "</domain>",
        "<domain><name>d</name>" + "x" * (MOST_CHARS - 40) + "</domain>",
    ],
    ids=["elements", "attributes", "namespaces", "depth", "references", "text"],
)  # fmt: skip
def test_xml_at_its_size_limits_is_read_fast(text):
    def seconds():
        started = time.thread_time()
        with contextlib.suppress(DomainError):
            rewritten(read_domain(text))
        return time.thread_time() - started

    assert min(seconds() for _ in range(3)) <= BOUND_S


@pytest.mark.parametrize("text", ["<a/>" * 20_001, "a=''" * 20_001, "<domain " + "xmlns:a='' " * 257, "x" * (MOST_CHARS + 1)])
def test_xml_beyond_a_size_limit_is_refused_before_parsing(text):
    with pytest.raises(DomainError, match="is not read"):
        read_domain(text)


def test_a_domain_without_a_change_keeps_its_text():
    before = "<?xml version='1.0'?>\n<!-- mine -->\n<domain type='kvm'><name>d</name><a><![CDATA[<]]></a></domain>"
    assert decided(before, policy(action="Audit"))[1] == before


def test_unknown_content_survives_a_change():
    nic = "<interface type='bridge' x:y='1' xmlns:x='u'>a<source bridge='br0'/>b<model type='e1000e'/>c<x:z/><!-- n --></interface>"
    before = f"<?xml version='1.0'?>\n<domain><name>d</name><x><![CDATA[<]]></x><devices>{nic}</devices></domain>"
    _, after = decided(before, wanting("passthrough"))
    assert after.startswith("<?xml version='1.0'?>\n<domain>")
    assert "<![CDATA[<]]>" in after
    (device,) = etree.fromstring(after).iterfind("devices/hostdev")
    assert ("".join(device.itertext()), device.get("{u}y"), device.find("{u}z") is not None) == ("abc", "1", True)


def of_type(os, model=""):
    """Return a domain with one NIC and some `<os>`."""
    return f"<domain><name>d</name>{os}<devices><interface type='bridge'>{model}</interface></devices></domain>"


@pytest.mark.parametrize(
    ("os", "model"),
    [
        ("<os><type arch='x86_64' machine='pc-q35-9.0'>hvm</type></os>", "rtl8139"),
        ("<os><type arch='i686' machine='pc'>hvm</type></os>", "rtl8139"),
        ("<os><type arch='aarch64' machine='virt-9.0'>hvm</type></os>", "virtio"),
        ("<os><type arch='aarch64' machine='virt'>hvm</type></os>", "virtio"),
        ("<os><type arch='aarch64'>hvm</type></os>", "virtio"),
        ("<os><type arch='armv7l' machine='virt-2.6'>hvm</type></os>", "virtio"),
        ("<os><type arch='armv7l' machine='vexpress-a15'>hvm</type></os>", "lan9118"),
        ("<os><type arch='armv6l' machine='versatilepb'>hvm</type></os>", "smc91c111"),
        ("<os><type arch='s390x' machine='s390-ccw-virtio-9.0'>hvm</type></os>", "virtio"),
        ("<os><type arch='riscv64' machine='virt'>hvm</type></os>", "virtio"),
        ("<os><type arch='riscv64' machine='sifive_u'>hvm</type></os>", "rtl8139"),
        ("<os><type arch='loongarch64' machine='virt'>hvm</type></os>", "virtio"),
        ("<os><type arch='ppc64le' machine='pseries-9.0'>hvm</type></os>", "rtl8139"),
        ("<os><type machine='q35'>hvm</type></os>", "rtl8139"),
        ("", "rtl8139"),
    ],
)
def test_the_default_model_depends_on_arch_and_machine(os, model):
    (nic,) = gather_domain(read_domain(of_type(os))).nics
    assert nic.present.model == model


def reason_of(os, model="<model type='virtio'/>"):
    found, after = decided(of_type(os, model), wanting("emulated"))
    (nic,) = found.nics
    return (nic.verdict, nic.reason, after == of_type(os, model))


@pytest.mark.parametrize("arch", ["aarch64", "armv7l", "s390x", "riscv64", "ppc64le", "loongarch64"])
def test_an_emulated_model_is_not_chosen_beyond_x86(arch):
    assert reason_of(f"<os><type arch='{arch}'>hvm</type></os>") == ("Blocked", "NotOnArchitecture", True)
    # A model that the domain has already is one that its QEMU has.
    assert reason_of(f"<os><type arch='{arch}'>hvm</type></os>", "<model type='e1000'/>") == ("Compliant", None, True)


@pytest.mark.parametrize("os", ["", "<os><type>hvm</type></os>", "<os><type arch='x86_64'>hvm</type></os>"])
def test_an_emulated_model_is_chosen_on_x86_or_an_unknown_arch(os):
    assert reason_of(os) == ("Change", None, False)
