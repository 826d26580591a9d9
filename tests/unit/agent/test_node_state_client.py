"""How the agent decodes the API server's answers."""

import pytest

from vmnic.agent.node_state_client import ApiNodeStateClient
from vmnic.api.node_state import NodeStatus
from vmnic.kube.errors import ApiError


class Answering:
    def __init__(self, body):
        self._body = body

    async def read(self, resource, name, namespace=""):
        return {"metadata": {"name": name}} | self._body


async def test_a_status_of_a_newer_agent_is_treated_as_empty():
    newer = {"status": {"pfs": [{"pciAddress": "0000:0b:00.0", "problem": {"reason": "NewWord", "message": "x"}}]}}
    assert (await ApiNodeStateClient(Answering(newer), "n1").read()).status == NodeStatus()


async def test_a_malformed_spec_is_an_api_error():
    with pytest.raises(ApiError, match=r"spec\.synced"):
        await ApiNodeStateClient(Answering({"spec": {"synced": "perhaps"}}), "n1").read()
