"""A small API server whose faults are scripted in `faults`."""

import asyncio
import json
import ssl
from collections import deque

from aiohttp import web

from vmnic.kube.connection import Connection


class FakeApi:
    """Serves one kind's objects at every path, with chunked lists, watches, and optimistic locking."""

    def __init__(self):
        self.objects = {}
        self.version = 1
        self.faults = deque()
        """Pairs `(verb, fault)` for the next request of that verb. A fault is a status, `hang`, `cut`, or a raw watch line."""
        self.requests = []
        self.page = 500
        self._watchers = []
        self._told = []
        """Every change with its version, for watches that continue from an earlier one."""
        self._listed = ("0", [])
        """Version and objects of the list that is being read, page by page."""

    def put(self, name, **fields):
        """Store an object and send it to the watchers."""
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = {"metadata": {"name": name, "resourceVersion": str(self.version)}, **fields}
        self._tell(kind, self.objects[name])

    def remove(self, name, *, silently=False):
        """Remove an object.

        If `silently` is set, no watcher receives an event.
        """
        self.version += 1
        gone = self.objects.pop(name)
        if not silently:
            self._tell("DELETED", gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}})

    def bookmark(self):
        self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def cut_watches(self):
        """Cut every watch in the middle."""
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers = []

    def say(self, line):
        """Send a raw line to every watcher."""
        for queue in self._watchers:
            queue.put_nowait(line)

    @property
    def watching(self):
        return len(self._watchers)

    def _tell(self, kind, body):
        line = json.dumps({"type": kind, "object": body})
        self._told.append((self.version, line))
        self.say(line)

    async def start(self):
        app = web.Application()
        app.router.add_route("*", r"/{path:[\s\S]*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        return Connection(f"http://127.0.0.1:{port}", ssl.create_default_context(), lambda: "token")

    async def stop(self):
        self.cut_watches()
        await self._runner.cleanup()

    async def _serve(self, request):
        verb = "WATCH" if request.query.get("watch") else request.method
        self.requests.append((verb, request.path, dict(request.query)))
        if self.faults and self.faults[0][0] == verb:
            what = self.faults.popleft()[1]
            if what == "hang":
                await asyncio.sleep(3600)
            if isinstance(what, int):
                return self._status(what)
        if verb == "WATCH":
            return await self._watch(request)
        if verb == "GET" and request.path.rsplit("/", 1)[-1] in self.objects:
            return web.json_response(self.objects[request.path.rsplit("/", 1)[-1]])
        if verb == "GET" and "limit" not in request.query:
            return self._status(404)
        return self._list(request) if verb == "GET" else await self._write(request)

    def _status(self, code):
        headers = {"Retry-After": "1"} if code == 429 else {}
        return web.json_response({"kind": "Status", "code": code, "message": f"scripted {code}"}, status=code, headers=headers)

    def _list(self, request):
        start = int(request.query.get("continue") or 0)
        if not start:
            self._listed = (str(self.version), [self.objects[name] for name in sorted(self.objects)])
        version, objects = self._listed
        meta = {"resourceVersion": version}
        if start + self.page < len(objects):
            meta["continue"] = str(start + self.page)
        return web.json_response({"metadata": meta, "items": objects[start : start + self.page]})

    async def _watch(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        queue = asyncio.Queue()
        for version, line in self._told:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(line)
        self._watchers.append(queue)
        while (line := await queue.get()) is not None:
            await response.write(line.encode() + b"\n")
        if request.transport is not None:
            request.transport.abort()
        return response

    async def _write(self, request):
        body = await request.json()
        name = request.path.rsplit("/", 1)[-1]
        if request.method == "POST":
            name = body["metadata"]["name"]
            if name in self.objects:
                return self._status(409)
        elif request.method == "PUT":
            wanted = body["metadata"].get("resourceVersion")
            if wanted and wanted != self.objects[name]["metadata"]["resourceVersion"]:
                return self._status(409)
        self.put(name, **{key: value for key, value in body.items() if key != "metadata"})
        return web.json_response(self.objects[name])
