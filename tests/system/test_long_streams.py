"""How long a streamed answer may take: ``responseTimeout`` is for each of its parts, as with TorchServe."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable

import pytest

from tests.system.conftest import Server, call, make_archive, wait_for

HANDLER = """
import time

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    body = data[0].get("body")
    for pause_s in (body if isinstance(body, list) else []):
        time.sleep(pause_s)
        send_intermediate_predict_response(["part "], context.request_ids, "", 200, context)
    return ["end"]
"""
LIMIT = "minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 1\n"


def test_response_timeout_is_for_each_part_of_a_streamed_answer(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "slow", HANDLER, config=LIMIT)
    server.start("--models", "slow.mar")
    before = server.workers("slow")[0]["pid"]
    json_type = {"Content-Type": "application/json"}
    answer = server.predict("slow", b"[" + b",".join([b"0.4"] * 8) + b"]", headers=json_type)
    assert (answer.status, answer.body) == (200, b"part " * 8 + b"end")
    assert server.workers("slow")[0]["pid"] == before

    # A part that does not come in time still ends the worker, and the answer is cut off, not completed.
    address = server.addresses()["inference"].removeprefix("http://").rstrip("/")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("POST", "/predictions/slow", b"[0, 60]", json_type)
        with connection.getresponse() as reply:
            assert reply.status == 200
            with pytest.raises(http.client.IncompleteRead) as cut:
                reply.read()
    assert cut.value.partial == b"part "
    wait_for(lambda: server.workers("slow")[0]["pid"] not in (before, 0), "another worker is started")
    url = server.url("inference", "/predictions/slow")
    wait_for(lambda: call(url, method="POST", data=b"[]", headers=json_type).body == b"end", "it answers")
