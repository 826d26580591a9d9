"""What a user may not read of the cluster."""

import msgspec
import pytest

from tests.builders.vm import preference, revision, vm
from vmnic.cli import live
from vmnic.kube.errors import ApiError
from vmnic.kube.resources import CONTROLLER_REVISIONS, VIRTUAL_MACHINES

OBJECTS = {CONTROLLER_REVISIONS: revision("kept", preference(model="e1000e")), VIRTUAL_MACHINES: vm()}


class Api:
    """An API server that refuses to list one kind."""

    refused = None

    def __init__(self, *_, **__):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def list_pages(self, kind, *, selectors=None):
        if kind is self.refused:
            raise ApiError(status=403, reason="Forbidden", message="no")
        if kind is CONTROLLER_REVISIONS:
            assert selectors == {"labelSelector": "instancetype.kubevirt.io/object-kind"}
        yield [msgspec.Raw(msgspec.json.encode(OBJECTS[kind]))], "1"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(live, "ApiClient", Api)
    monkeypatch.setattr(live, "kubeconfig_connection", lambda _: None)
    return lambda refused: monkeypatch.setattr(Api, "refused", refused)


async def test_a_plan_needs_no_right_to_list_revisions(server):
    kinds = (CONTROLLER_REVISIONS, VIRTUAL_MACHINES)
    assert list((await live.read_cluster(None, kinds))[0].revisions) == [("tenants", "kept")]
    server(CONTROLLER_REVISIONS)
    objects, problems = await live.read_cluster(None, kinds)
    assert (len(objects.machines), len(objects.revisions), len(problems), list(objects.refused)) == (
        1,
        0,
        0,
        ["ControllerRevision"],
    )
    server(VIRTUAL_MACHINES)
    with pytest.raises(ApiError):
        await live.read_cluster(None, kinds)
