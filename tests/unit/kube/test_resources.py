"""Foreign names in URL paths, which stay one segment of a path or are not sent."""

from urllib.parse import unquote

import pytest

from tests.unit.kube.fake_api import FakeApi
from vmnic.kube.client import ApiClient
from vmnic.kube.errors import ApiError, BadNameError
from vmnic.kube.resources import NODES, PODS, POLICIES

HOSTILE = [
    "../../../../apis/x", "x?dryRun=All&y=", "a/b", "%2e%2e", "%2e%2e%2fsecrets", "x#y", "a\0b", "a\nb", "a b", "a;b", "..;", "...", "ü",
    "a\\b", "a@b:c", "~", "a%00",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_name_stays_one_segment_of_the_path(name):
    path = PODS.path("ns", name, "eviction")
    head, middle, tail = path.partition("/api/v1/namespaces/ns/pods/")[2].rpartition("/")
    assert (unquote(head), middle + tail) == (name, "/eviction")
    assert not set(head) & set("/?#\0\n ;")
    assert PODS.path(name, "x").split("/")[4] == head


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 254, "\udc80"], ids=ascii)
def test_impossible_name_is_refused(name):
    with pytest.raises(BadNameError, match="is not a name"):
        NODES.path("", name)
    with pytest.raises(BadNameError, match="is not a namespace"):
        PODS.path(name, "x")


def test_object_path_never_becomes_its_collection():
    assert PODS.collection_path() == "/api/v1/pods"
    assert POLICIES.collection_path("ignored") == "/apis/vmnic.dev/v1alpha1/vmnicpolicies"
    with pytest.raises(ApiError):
        PODS.path("", "x")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
async def test_hostile_name_reaches_the_server_unchanged(name):
    fake = FakeApi()
    fake.faults.append(("POST", 400))
    async with ApiClient(await fake.start(), field_manager="test") as api:
        with pytest.raises(ApiError, match="scripted"):
            await api.create(PODS, {}, "ns", name=name, subresource="eviction")
    await fake.stop()
    assert fake.requests == [("POST", f"/api/v1/namespaces/ns/pods/{name}/eviction", {"fieldManager": "test"})]


async def test_deleting_an_empty_name_deletes_no_collection():
    fake = FakeApi()
    async with ApiClient(await fake.start(), field_manager="test") as api:
        with pytest.raises(BadNameError):
            await api.delete(PODS, "", "ns")
    await fake.stop()
    assert fake.requests == []
