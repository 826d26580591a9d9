"""Requests that end with the lease, writes within their rate, and errors whose class decides retries."""

import pytest

from vmnic.kube import client as module
from vmnic.kube.client import ApiClient
from vmnic.kube.errors import (
    ApiError,
    ConflictError,
    GoneError,
    NotFoundError,
    NotLeadingError,
    TooManyRequestsError,
    UnreachableError,
    error_for,
)
from vmnic.kube.resources import NODES, PODS

BODY = {"metadata": {"name": "n1"}}


def client(api, **options):
    return ApiClient(api.connection, field_manager="test", **options)


@pytest.mark.parametrize("left_s", [None, 0.0, -1.0])
async def test_nothing_is_written_without_time_left_on_the_lease(api, left_s):
    async with client(api, guard=lambda: left_s) as made:
        with pytest.raises(NotLeadingError, match="the lease has run out"):
            await made.create(NODES, BODY)
    assert (api.objects, made.writes) == ({}, {})


async def test_write_does_not_outlive_the_lease(api):
    api.faults.append(("POST", "hang"))
    async with client(api, guard=lambda: 0.05, timeout_s=3600) as made:
        with pytest.raises(UnreachableError):
            await made.create(NODES, BODY)


async def test_read_needs_no_lease(api):
    api.put("n1")
    async with client(api, guard=lambda: None) as made:
        assert (await made.read(NODES, "n1"))["metadata"]["name"] == "n1"


async def test_every_write_and_no_read_counts_for_the_rate_limit(api, monkeypatch):
    waits, slept = iter([0.001, 0.002]), []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(module.WriteRate, "reserve", lambda _: next(waits))
    async with client(api, writes_per_s=1.0) as made:
        with monkeypatch.context() as patched:
            patched.setattr(module.asyncio, "sleep", sleep)
            await made.create(NODES, BODY)
            await made.replace(NODES, {"metadata": {}}, "n1")
            await made.read(NODES, "n1")
    assert (slept, dict(made.writes)) == ([0.001, 0.002], {"POST nodes": 1, "PUT nodes": 1})


@pytest.mark.parametrize(
    ("status", "subresource", "per_s"),
    [(429, "", 20.0), (503, "", 20.0), (504, "", 20.0), (500, "", 40.0), (409, "", 40.0), (429, "eviction", 40.0)],
)
async def test_only_a_server_without_capacity_lowers_the_rate(api, status, subresource, per_s):
    api.faults.append(("POST", status))
    async with client(api, writes_per_s=40.0) as made:
        with pytest.raises(ApiError):
            await made.create(PODS, BODY, "ns", name="p", subresource=subresource)
        assert made._rate.per_s == per_s


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (409, ConflictError), (410, GoneError), (429, TooManyRequestsError), (500, ApiError)],
)
async def test_error_has_the_class_that_decides_the_retry(api, status, error):
    api.faults.append(("POST", status))
    async with client(api) as made:
        with pytest.raises(error, match=f"scripted {status}") as caught:
            await made.create(NODES, BODY)
    assert (caught.value.status, caught.value.retry_after_s) == (status, 1.0 if status == 429 else None)


async def test_server_that_is_away_is_unreachable(api):
    await api.stop()
    async with client(api, timeout_s=1.0) as made:
        with pytest.raises(UnreachableError):
            await made.read(NODES, "n1")


async def test_object_that_does_not_exist_reads_as_none(api):
    api.faults.append(("DELETE", 404))
    async with client(api) as made:
        assert await made.read(NODES, "n1") is None
        await made.delete(NODES, "n1")


async def test_list_comes_page_by_page(api):
    api.page = 2
    for number in range(5):
        api.put(f"n{number}")
    async with client(api) as made:
        pages = [len(page) async for page, _ in made.list_pages(NODES)]
    assert pages == [2, 2, 1]


@pytest.mark.parametrize(
    "body",
    [
        "text",
        ["a list"],
        {"details": "text"},
        {"details": {"causes": "text"}},
        {"details": {"causes": ["text", 5]}},
        {"message": {"a": 1}, "reason": ["b"]},
    ],
)
def test_an_answer_of_any_shape_becomes_an_error(body):
    error = error_for(502, body)
    assert (error.status, error.causes, type(error.message), type(error.reason)) == (502, (), str, str)
