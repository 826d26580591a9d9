"""Places and names of guest systems, vmnic's own and those of a user's file."""

import json
import pathlib

import pytest

from tests.builders.decide import decision
from tests.builders.vm import policy, vm
from vmnic.kubevirt.guests import guest_files, kept_keys, system_of
from vmnic.kubevirt.vm import decode_machine


@pytest.fixture
def with_guests(tmp_path):
    """Add a user's guest data, and remove them again."""

    def add(text):
        (tmp_path / "guests.yaml").write_text(text)
        guest_files.add(tmp_path / "guests.yaml")

    yield add
    guest_files.reset()


def guest_of(machine):
    found = decision(machine, policy()).vm
    return (found.guest_os.value, found.guest_os_source)


@pytest.mark.parametrize(
    ("labels", "guest"),
    [
        ({"harvesterhci.io/os": "windows"}, ("windows", "label harvesterhci.io/os")),
        ({"harvesterhci.io/os": "openSUSE"}, ("linux", "label harvesterhci.io/os")),
        ({"harvesterhci.io/os": "otherLinux"}, ("linux", "label harvesterhci.io/os")),
        ({"harvesterhci.io/os": "SLEs"}, ("linux", "label harvesterhci.io/os")),
        ({"harvesterhci.io/os": "freebsd"}, ("unknown", "")),
        ({"vm.kubevirt.io/template": "windows2k22-server-medium"}, ("windows", "label vm.kubevirt.io/template")),
        ({"vm.kubevirt.io/template": "rhel9-server-small"}, ("linux", "label vm.kubevirt.io/template")),
        ({"vm.kubevirt.io/template": "old-database"}, ("unknown", "")),
        ({"os.template.kubevirt.io/win11": "true", "harvesterhci.io/os": "linux"}, ("windows", "label os.template.kubevirt.io/win11")),
        ({"os.template.kubevirt.io/other": "true", "harvesterhci.io/os": "linux"}, ("linux", "label harvesterhci.io/os")),
    ],
)  # fmt: skip
def test_labels_of_vendors_name_the_guest(labels, guest):
    assert guest_of(vm(os=None, labels=labels)) == guest


@pytest.mark.parametrize(
    ("names", "guest"),
    [
        (["win2k22", "win10", "WIN", "windows", "WindowsServer", "winxp", "mswindows", "Microsoft Windows Server 2022"], "windows"),
        (["ol", "ol9", "arch", "archlinux", "amzn2", "fedora40", "almalinux9", "sle15", "sles", "Red Hat", "ubuntu22.04"], "linux"),
        (["", "old", "archive", "winery", "slender", "solaris", "freebsd14", "x" * 100_000], "unknown"),
    ],
)  # fmt: skip
def test_names_begin_with_a_known_word(names, guest):
    assert {system_of(name).value for name in names} == {guest}


OWN = """
places:
- {object: VirtualMachine, label: example.com/image}
- {object: VirtualMachine, annotation: example.com/system}
- {object: Template, label: example.com/os}
- {object: Template, labelPrefix: example.com/is-}
- {object: Preference, annotation: example.com/os}
names: {windows: [gold-w, "1042"], linux: [gold-l, win-of-linux]}
"""


@pytest.mark.parametrize(
    ("places", "guest"),
    [
        ({"labels": {"example.com/image": "1042"}}, ("windows", "label example.com/image")),
        ({"annotations": {"example.com/system": "Gold-L3"}}, ("linux", "annotation example.com/system")),
        ({"template_labels": {"example.com/os": "win11"}}, ("windows", "label example.com/os")),
        ({"template_labels": {"example.com/is-gold-w": "true"}}, ("windows", "label example.com/is-gold-w")),
        ({"template_labels": {"example.com/is-gold-w": "false"}}, ("unknown", "")),
        ({"labels": {"example.com/image": "win-of-linux", "harvesterhci.io/os": "windows"}}, ("linux", "label example.com/image")),
        ({"labels": {"harvesterhci.io/os": "windows"}}, ("windows", "label harvesterhci.io/os")),
        ({"labels": {"example.com/image": "unheard-of", "harvesterhci.io/os": "gold-l"}}, ("linux", "label harvesterhci.io/os")),
    ],
)  # fmt: skip
def test_places_and_names_of_a_user_come_first(with_guests, places, guest):
    with_guests(OWN)
    machine = vm(os=None, labels=places.get("labels"))
    machine["metadata"]["annotations"] = places.get("annotations", {})
    machine["spec"]["template"]["metadata"]["labels"] = places.get("template_labels", {})
    assert guest_of(machine) == guest


def test_a_user_may_name_an_annotation_of_a_preference(with_guests):
    with_guests(OWN)
    preference = {
        "kind": "VirtualMachineClusterPreference", "metadata": {"name": "p"}, "spec": {"annotations": {"example.com/os": "gold-w"}},
    }  # fmt: skip
    found = decision(vm(os=None, preference={"name": "p"}), preference, policy()).vm
    assert (found.guest_os.value, found.guest_os_source) == ("windows", "preference")


def with_texts():
    machine = vm(os=None, labels={"app": "db"})
    machine["metadata"]["annotations"] = {"example.com/system": "x" * 10_000, "last-applied": "y"}
    machine["spec"]["template"]["metadata"]["labels"] = {"example.com/os": "linux", "app": "db"}
    return decode_machine(json.dumps(machine).encode())


def test_only_texts_that_the_data_name_are_kept(with_guests):
    assert (with_texts().annotations, with_texts().template_labels) == ({}, {})
    with_guests(OWN)
    found = with_texts()
    assert (len(found.annotations["example.com/system"]), list(found.annotations)) == (63, ["example.com/system"])
    assert found.template_labels == {"example.com/os": "linux"}


def test_own_data_need_no_second_look_at_a_vm():
    assert kept_keys() == (frozenset(), frozenset(), ())


def test_the_example_in_the_docs_is_read(with_guests):
    page = pathlib.Path(__file__).parents[3] / "docs" / "guests.md"
    with_guests(page.read_text().split("```yaml\n")[1].split("```")[0])
    assert guest_of(vm(os=None, labels={"example.com/image": "1042"})) == ("windows", "label example.com/image")
