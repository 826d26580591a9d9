"""The kubelet's own protocol files verify the agent's message classes and those of the kubelet double."""

import pathlib
import re

import pytest

from tests.harness import kubelet_api
from tests.harness.programs import KUBERNETES, Go, cache_directory
from vmnic.agent.kubelet.api import plugin_classes
from vmnic.agent.kubelet.podresources import message_classes

_MESSAGE = re.compile(r"^message (\w+) \{(.*?)\}", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^\s*(?:optional )?((?:repeated )?[\w.]+|map<string, string>) (\w+) = (\d+);", re.MULTILINE)


@pytest.fixture(scope="session")
def protocol(tmp_path_factory):
    work = tmp_path_factory.mktemp("go")
    (work / "go.mod").write_text("module testdeps\n")
    module = Go(cache_directory()).module(work, f"k8s.io/kubelet@v{KUBERNETES.replace('1.', '0.', 1)}")
    return pathlib.Path(module["Dir"]) / "pkg" / "apis"


def published(path):
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)
    return {
        name: {field: (int(number), kind) for kind, field, number in _FIELD.findall(body)}
        for name, body in _MESSAGE.findall(text)
    }


def kind_of(field):
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map<string, string>"
    base = field.message_type.name if field.message_type is not None else _SCALARS[field.type]
    return f"repeated {base}" if field.is_repeated else base


_SCALARS = {3: "int64", 5: "int32", 8: "bool", 9: "string"}
"""Values of FieldDescriptorProto.Type."""


@pytest.mark.parametrize(
    ("file", "classes"),
    [
        pytest.param("deviceplugin/v1beta1", plugin_classes, id="the device plugin's"),
        pytest.param("deviceplugin/v1beta1", kubelet_api.plugin_api, id="the double's, for device plugins"),
        pytest.param("podresources/v1", message_classes, id="the reader of holders'"),
        pytest.param("podresources/v1", kubelet_api.pods_api, id="the double's, for holders"),
    ],
)
def test_messages_match_the_kubelets_protocol_files(protocol, file, classes):
    theirs = published(protocol / file / "api.proto")
    for name, message in classes().items():
        ours = {field.name: (field.number, kind_of(field)) for field in message.DESCRIPTOR.fields}
        assert ours.items() <= theirs[name].items(), name
