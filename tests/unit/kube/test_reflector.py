"""The reflector under scripted faults ends up with exactly the server's objects."""

import asyncio
import contextlib
import random

import msgspec
import pytest
from aiohttp import web

from vmnic.kube import reflector as module
from vmnic.kube.client import ApiClient
from vmnic.kube.reflector import ObjectKey, Reflector
from vmnic.kube.resources import NODES
from vmnic.kube.set_aside import SetAside, SetAsideReason
from vmnic.kube.time_budget import OverBudgetError


class Thing(msgspec.Struct, frozen=True):
    size: int


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", (0.001, 0.01))


class Watcher:
    """A running reflector, and the changes that it reported."""

    def __init__(self, client, **options):
        self.changes = []
        self.fails_for = set()
        self.set_aside = SetAside()
        options = {"decode": msgspec.json.Decoder(Thing).decode, "set_aside": self.set_aside} | options
        self.reflector = Reflector(client, NODES, on_change=self._changed, **options)

    def _changed(self, key, old, new):
        if key.name in self.fails_for:
            raise RecursionError
        self.changes.append((key.name, old.size if old else None, new.size if new else None))

    @property
    def known(self):
        return {key.name: thing.size for key, thing in self.reflector.items.items()}


@contextlib.asynccontextmanager
async def running(api, **options):
    async with ApiClient(api.connection, field_manager="test", timeout_s=2) as client:
        made = Watcher(client, **options)
        task = asyncio.create_task(made.reflector.run())
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def watcher(api):
    async with running(api) as made:
        yield made


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def synced(api, watcher, **things):
    for name, size in things.items():
        api.put(name, size=size)
    await until(lambda: watcher.known == things and api.watching)
    watcher.changes.clear()


async def test_paged_list_is_read_completely(api, watcher):
    api.page = 2
    await synced(api, watcher, a=1, b=2, c=3, d=4, e=5)


async def test_page_leaves_the_event_loop_its_turns(api):
    turns, decoded = [0], []

    def decode(raw):
        decoded.append(turns[0])
        return msgspec.json.decode(raw, type=Thing)

    async def count():
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    for number in range(3 * module._SLICE):
        api.put(f"n{number}", size=number)
    async with running(api, decode=decode):
        counter = asyncio.create_task(count())
        await until(lambda: len(decoded) == 3 * module._SLICE)
        counter.cancel()
    assert len(set(decoded)) == 3


async def test_changes_arrive_by_the_watch(api, watcher):
    await synced(api, watcher, a=1)
    api.put("b", size=2)
    api.put("a", size=3)
    api.remove("b")
    await until(lambda: len(watcher.changes) == 3)
    assert watcher.changes == [("b", None, 2), ("a", 1, 3), ("b", 2, None)]


async def test_unchanged_projection_is_not_reported(api, watcher):
    await synced(api, watcher, a=1)
    api.put("a", size=1, other="field")
    api.put("b", size=2)
    await until(lambda: "b" in watcher.known)
    assert watcher.changes == [("b", None, 2)]


async def test_cut_watch_continues_from_its_last_bookmark(api, watcher):
    await synced(api, watcher, a=1)
    api.put("z", size=9)
    api.bookmark()
    await until(lambda: "z" in watcher.known)
    version = str(api.version)
    api.cut_watches()
    await until(lambda: api.watching)
    assert api.requests[-1][2]["resourceVersion"] == version
    assert sum(verb == "GET" for verb, *_ in api.requests) == 1


@pytest.mark.parametrize("how", ["status", "in the stream"])
async def test_expired_version_causes_a_relist_that_finds_deletions(api, watcher, how):
    await synced(api, watcher, a=1, b=2)
    api.remove("a", silently=True)
    if how == "status":
        api.faults.append(("WATCH", 410))
        api.cut_watches()
    else:
        api.say('{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}')
    await until(lambda: watcher.changes)
    assert (watcher.changes, watcher.known) == ([("a", 1, None)], {"b": 2})


async def test_expired_continue_token_restarts_the_list(api, watcher):
    api.page = 1
    for name in "abc":
        api.put(name, size=1)
    api.faults.append(("GET", 410))
    await until(lambda: len(watcher.known) == 3)


@pytest.mark.parametrize("fault", [500, 429, 503])
async def test_error_keeps_the_cache_and_is_retried(api, watcher, fault, monkeypatch):
    await synced(api, watcher, a=1)
    pauses = []
    monkeypatch.setattr(asyncio, "sleep", _instant(asyncio.sleep, pauses))
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    monkeypatch.setattr(module, "_BACKOFF_S", (0.2, 15.0))
    api.faults += [("WATCH", fault)] * 3
    api.cut_watches()
    await until(lambda: not api.faults and api.watching)
    assert (watcher.known, watcher.changes) == ({"a": 1}, [])
    # The watch is cut first. A 429 brings its own delay.
    assert [pause for pause in pauses if pause > 0.1] == [0.2, *([1, 1, 1] if fault == 429 else [0.4, 0.8, 1.6])]


def _instant(real, pauses):
    async def sleep(pause_s):
        pauses.append(pause_s)
        await real(0.001)

    return sleep


async def test_hanging_list_times_out_and_is_retried(api, watcher):
    api.faults.append(("GET", "hang"))
    await synced(api, watcher, a=1)


async def test_one_malformed_object_among_500_affects_no_other(api, watcher):
    for number in range(500):
        api.put(f"n{number}", size=number)
    api.put("bad", size="large")
    await until(lambda: len(watcher.known) == 500 and watcher.reflector.malformed)
    assert "$.size" in watcher.reflector.malformed[ObjectKey("", "bad")]
    await until(lambda: api.watching)
    api.put("bad", size=1)
    await until(lambda: len(watcher.known) == 501)
    assert watcher.reflector.malformed == {}


async def test_object_that_becomes_malformed_is_set_aside(api, watcher):
    await synced(api, watcher, a=1)
    api.put("a", size="large")
    await until(lambda: watcher.changes)
    assert (watcher.changes, list(watcher.reflector.malformed)) == ([("a", 1, None)], [("", "a")])


async def test_object_malformed_from_the_start_is_reported_once(api, watcher):
    api.put("a", size="large")
    await until(lambda: watcher.changes and api.watching)
    api.put("a", size="larger")
    api.put("b", size=1)
    await until(lambda: watcher.known)
    assert watcher.changes == [("a", None, None), ("b", None, 1)]


@pytest.mark.parametrize("optional", [True, False], ids=["an optional kind", "a kind of ours"])
async def test_unserved_kind_counts_as_listed_only_if_optional(api, optional):
    api.faults += [("GET", 404)] * 1000
    async with running(api, optional=optional) as made:
        await until(lambda: len(api.requests) > 2)
        assert (made.reflector.synced.is_set(), made.reflector.absent) == (optional, optional)
        api.faults.clear()
        await synced(api, made, a=1)
        assert not made.reflector.absent


def nested(levels):
    """Return JSON text that is nested too deeply for any recursive decoder."""
    return '{"a":' * levels + "1" + "}" * levels


BAD = {"deep": nested(5000), "wrong type": '{"size": "large"}', "no size": '{"size": {}}'}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_bad_object_in_a_watch_affects_no_other(api, watcher, bad):
    await synced(api, watcher, a=1)
    api.version += 1
    meta = f'{{"name": "bad", "resourceVersion": "{api.version}"}}'
    body = f'{{"metadata": {meta}, "size": 1, "more": {bad}}}' if bad.startswith('{"a"') else f'{{"metadata": {meta}, {bad[1:]}'
    api.say(f'{{"type": "ADDED", "object": {body}}}')
    api.put("b", size=2)
    await until(lambda: "b" in watcher.known)
    assert (watcher.known, list(watcher.reflector.malformed)) == ({"a": 1, "b": 2}, [("", "bad")])


async def test_deeply_nested_object_in_a_list_affects_no_other(api, watcher, monkeypatch):
    api.put("a", size=1)
    real = api._list

    def with_deep_object(request):
        text = real(request).text
        deep = f'{{"metadata": {{"name": "deep"}}, "size": 1, "more": {nested(5000)}}}'
        return web.Response(text=text.replace('"items": [', f'"items": [{deep}, '), content_type="application/json")

    monkeypatch.setattr(api, "_list", with_deep_object)
    await until(lambda: watcher.reflector.malformed)
    assert (watcher.known, list(watcher.reflector.malformed)) == ({"a": 1}, [("", "deep")])


@pytest.mark.parametrize(
    "error", [RecursionError, MemoryError, ArithmeticError, AttributeError, OverBudgetError], ids=lambda one: one.__name__
)
async def test_any_exception_of_a_decoder_sets_one_object_aside(api, error):
    def decode(raw):
        thing = msgspec.json.decode(raw, type=Thing)
        if thing.size == 2:
            raise error
        return thing

    async with running(api, decode=decode) as made:
        api.put("a", size=1)
        api.put("b", size=2)
        await until(lambda: made.known and made.reflector.malformed)
        assert (made.known, list(made.reflector.malformed)) == ({"a": 1}, [("", "b")])


async def test_exception_in_a_handler_affects_no_other_object(api, watcher):
    watcher.fails_for = {"a"}
    api.put("a", size=1)
    api.put("b", size=2)
    await until(lambda: watcher.changes == [("b", None, 2)])
    assert [one.key for one in watcher.set_aside.items()] == ["a"]
    watcher.fails_for = set()
    await until(lambda: api.watching)
    api.put("a", size=3)
    await until(lambda: len(watcher.changes) == 2)
    assert watcher.set_aside.items() == ()


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"type": "ADDED", "object": []}', '{"type": "BOOKMARK", "object": {}}', "{}"]
)
async def test_malformed_line_does_not_end_the_reflector(api, watcher, line):
    await synced(api, watcher, a=1)
    api.say(line)
    await until(lambda: api.watching)
    api.put("b", size=2)
    await until(lambda: "b" in watcher.known)


async def test_malformed_object_keeps_its_last_readable_state(api, watcher):
    await synced(api, watcher, a=1)
    api.put("a", size="large")
    await until(lambda: watcher.reflector.malformed)
    assert watcher.reflector.last_readable == {("", "a"): Thing(1)}
    api.remove("a")
    await until(lambda: not watcher.reflector.malformed)
    assert (watcher.reflector.last_readable, watcher.set_aside.items(), watcher.changes[-1]) == ({}, (), ("a", None, None))


async def test_never_readable_object_is_salvaged(api):
    async with running(api, salvage=lambda _: Thing(7)) as made:
        api.put("a", size="large")
        await until(lambda: made.reflector.last_readable == {("", "a"): Thing(7)})


async def test_salvage_that_takes_too_long_costs_only_its_object(api, monkeypatch):
    def busy(_):
        while True:
            pass

    monkeypatch.setattr(module, "_DECODE_S", 0.05)
    async with running(api, salvage=busy) as made:
        api.put("a", size="large")
        api.put("b", size=1)
        await until(lambda: made.reflector.items == {("", "b"): Thing(1)})
        assert (list(made.reflector.malformed), made.reflector.last_readable) == ([("", "a")], {})


async def test_set_aside_object_is_reported_when_its_version_changes(api, watcher):
    await synced(api, watcher, a=1)
    watcher.set_aside.add("Node", "a", SetAsideReason.TIME, "slow")
    api.put("a", size=1, other="field")
    await until(lambda: watcher.changes == [("a", 1, 1)])


async def test_versions_that_always_expire_are_listed_with_pauses(api, watcher, monkeypatch):
    await synced(api, watcher, a=1)
    pauses = []
    monkeypatch.setattr(asyncio, "sleep", _instant(asyncio.sleep, pauses))
    monkeypatch.setattr(random, "uniform", lambda _, most: most)
    monkeypatch.setattr(module, "_BACKOFF_S", (0.2, 15.0))
    api.faults += [("WATCH", 410)] * 4
    api.cut_watches()
    await until(lambda: not api.faults and api.watching)
    assert [pause for pause in pauses if pause > 0.1] == [0.2, 0.4, 0.8, 1.6]


async def test_kind_that_is_no_longer_served_has_no_objects(api):
    async with running(api, optional=True) as made:
        await synced(api, made, a=1)
        api.faults += [("WATCH", 404), *[("GET", 404)] * 1000]
        api.cut_watches()
        await until(lambda: made.reflector.absent)
        assert (made.known, made.changes) == ({}, [("a", 1, None)])
        api.faults.clear()
        await until(lambda: made.known == {"a": 1} and not made.reflector.absent)


async def test_object_that_stalled_the_last_run_waits_for_a_change(api):
    set_aside = SetAside()
    set_aside.add("Node", "a", SetAsideReason.TIME, "the loop stood still")
    api.put("a", size=1)
    async with running(api, set_aside=set_aside) as made:
        await until(lambda: made.reflector.malformed and api.watching)
        assert made.known == {}
        api.put("a", size=1)
        await until(lambda: made.known == {"a": 1})
