"""Selection of the conditions that are worth an Event."""

import pytest

from vmnic.api.common import Condition
from vmnic.controller.status.condition_events import POOL_NEWS, news_of


def conditions(ready="AllNodesReady", stalled="", conflict=""):
    made = [Condition(type="Ready", status="False" if stalled else "True", reason=ready, message="why")]
    made += [Condition(type="Stalled", status="True" if stalled else "False", reason=stalled or "NotStalled", message="who")]
    return [*made, Condition(type="Conflict", status="True" if conflict else "False", reason=conflict or "NoConflict")]


FAILED = conditions("NodesFailed", stalled="NodesFailed")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([], conditions(), [("Normal", "AllNodesReady")]),
        (conditions(), conditions(), []),
        (conditions("RollingOut"), conditions(), [("Normal", "AllNodesReady")]),
        (conditions(), FAILED, [("Warning", "NodesFailed")]),
        (FAILED, conditions(), [("Normal", "AllNodesReady")]),
        (conditions(), conditions(conflict="Conflict"), [("Warning", "Conflict")]),
        (conditions(conflict="Conflict"), conditions(), []),
    ],
    ids=["the first word", "nothing new", "done", "a failure, once", "recovery", "a conflict begins", "a conflict ends"],
)
def test_only_changes_are_reported(before, after, told):
    assert [(kind, one.reason) for kind, one in news_of(before, after, POOL_NEWS)] == told
