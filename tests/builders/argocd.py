"""Runs Argo CD's health checks as Argo CD does: the script gets the object as `obj` and gives a table."""

import pathlib

import lupa

CHECKS = pathlib.Path(__file__).parents[2] / "deploy" / "argocd" / "resource_customizations" / "vmnic.dev"


def health(raw):
    """The status and message that the check of an object's kind gives."""
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(raw, recursive=True)
    found = lua.execute((CHECKS / raw["kind"] / "health.lua").read_text())
    return found.status, found.message
