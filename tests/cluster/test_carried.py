"""Every field of KubeVirt's NICs and host devices is in a table of what a change of datapath carries."""

import pytest
import yaml

from tests.harness.programs import ensure
from vmnic.kubevirt.carried import INTERFACE_HANDLED, INTERFACE_SETTINGS
from vmnic.kubevirt.originals import INTERFACE_SETTINGS as RESTORED

NETWORK_HANDLED = {"name", "pod", "multus", "resourceClaim"}
"""A network that is the pod's or a claim's is never replaced, and of a Multus network only the name is."""
HOST_DEVICE_HANDLED = {"name", "deviceName", "tag", "claimName", "requestName"}
"""A host device of a claim has no `deviceName`, so it is no NIC to vmnic."""


def fields_of(kind):
    """Return the fields of the entries of a list in the VirtualMachine's schema."""
    path = ensure().manifests / "crds" / "virtualmachines.kubevirt.io.yaml"
    crd = yaml.load(path.read_text(), yaml.CSafeLoader)
    schema = next(one for one in crd["spec"]["versions"] if one["name"] == "v1")["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]["properties"]["template"]["properties"]["spec"]["properties"]
    lists = spec if kind == "networks" else spec["domain"]["properties"]["devices"]["properties"]
    return set(lists[kind]["items"]["properties"])


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("interfaces", INTERFACE_HANDLED | set(INTERFACE_SETTINGS)),
        ("networks", NETWORK_HANDLED),
        ("hostDevices", HOST_DEVICE_HANDLED),
    ],
)
def test_no_field_of_kubevirts_schema_is_unknown(kind, known):
    fields = fields_of(kind)
    assert fields - known == set()
    assert len(fields) >= 3


def test_every_setting_of_an_interface_can_be_restored():
    assert set(INTERFACE_SETTINGS) == RESTORED
