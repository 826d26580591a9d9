"""Replies to many operations stay within bounds. Only answers without room are refused."""

import errno

from vmnic.host.socket import REPLY_BYTES, answer


class Files:
    def perform(self, op):
        return "x" * (REPLY_BYTES // 2 if op.path == "/large" else 10)


def test_only_an_answer_without_room_in_the_reply_is_refused():
    ops = [{"kind": "ReadFile", "path": path} for path in ("/large", "/large", "/small")]
    replies = answer(Files(), {"ops": ops})["replies"]
    assert [one.get("error", {}).get("errno") for one in replies] == [None, errno.EMSGSIZE, None]
