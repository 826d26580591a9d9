"""Runner of Argo CD's health checks.

As in Argo CD, the Lua script gets the object as `obj` and returns a table.
"""

import pathlib

import lupa

CHECKS = pathlib.Path(__file__).parents[2] / "deploy" / "argocd" / "resource_customizations" / "vmnic.dev"


def health(raw):
    """Return status and message of the check for an object's kind."""
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(raw, recursive=True)
    found = lua.execute((CHECKS / raw["kind"] / "health.lua").read_text())
    return found.status, found.message
