"""The agent's process is small, because it imports nothing that only the controller and the CLI need."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vmnic.agent.main", ["asyncio", "msgspec", "aiohttp"]),
        (
            "vmnic.agent.wiring",
            ["pydantic", "kubernetes", "kopf", "pyroute2", "typer", "rich", "cryptography", "prometheus_client"],
        ),
        ("vmnic.host.worker", ["msgspec", "aiohttp", "asyncio", "pyroute2", "pydantic"]),
        ("vmnic.cli.app", ["pydantic", "kubernetes", "aiohttp", "rich", "yaml"]),
    ],
)
def test_nothing_heavy_is_imported(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
