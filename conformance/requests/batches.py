"""Sections 1.5 and 9: batches, queues, timeouts, what happens to work in progress."""

from __future__ import annotations

import json
from typing import Any

from conformance.case import Case, ask, do

__all__ = ["CASES", "MODELS"]

MODELS = ("batching.mar", "slow.mar", "hasty.mar", "narrow.mar", "ticket.mar", "kitchen.mar")
_SLEEP = {"do": "sleep", "s": 1.2}
_NO_WORKER = "1.5 no worker"


def _burst(name: str, row: str, model: str, orders: list[dict[str, object]], **more: Any) -> Case:
    bodies = tuple(json.dumps(order).encode() for order in orders)
    headers = (("Content-Type", "application/json"),)
    return Case(name, row, f"/predictions/{model}", "POST", headers=headers, burst=bodies, **more)


def _batch(name: str, row: str, orders: list[dict[str, object]], **more: Any) -> Case:
    return _burst(name, row, "batching", [{"n": n, **order} for n, order in enumerate(orders)], **more)


def _manage(name: str, row: str, method: str, path: str, **more: Any) -> Case:
    return Case(name, row, path, method, "management", timeout_s=60, **more)


CASES = (
    _batch("batch-one", "9.5 window", [{}]),
    _batch("batch-two", "9.5 window", [{}, {}], stagger_s=0.1),
    _batch("batch-full", "9.5 full batch", [{}, {}, {}, {}], stagger_s=0.1),
    _batch(
        "batch-item-status",
        "9.4 status of an item",
        [{}, {"status": 404, "phrase": "Item Not There"}, {"status": 201}, {}],
        stagger_s=0.1,
    ),
    _batch("batch-raise", "1.5 batch fails together", [{}, {"raise": True}, {}, {}], stagger_s=0.1),
    _batch("batch-after-raise", "1.5 batch fails together", [{}]),
    do("response-timeout", "9.3 responseTimeout", {"do": "sleep", "s": 5}, model="slow"),
    do("response-timeout-after", "9.3 restart", {"value": "back"}, model="slow", timeout_s=60),
    do("client-timeout", "6 clientTimeoutInMills", {"do": "sleep", "s": 2}, model="hasty", timeout_s=6),
    do("client-timeout-after", "6 clientTimeoutInMills", {"value": "ok"}, model="hasty", until="^ok$"),
    _burst("queue-full", "1.5 job queue full", "narrow", [_SLEEP] * 4, stagger_s=0.2),
    _burst("no-ticket", "1.5 no job ticket", "ticket", [_SLEEP] * 2, stagger_s=0.3),
    do("ticket-again", "6 useJobTicket", {"value": "ok"}, model="ticket"),
    _burst("queue-of-one-worker", "9.5 queue", "kitchen", [_SLEEP, {"value": 2}, {"value": 3}], stagger_s=0.1),
    do(
        "scale-down-in-flight",
        "1.5 scale-down in flight",
        {"do": "sleep", "s": 2},
        model="kitchen",
        timeout_s=60,
        meanwhile=_manage("x", "", "PUT", "/models/kitchen?min_worker=2&max_worker=2&synchronous=true"),
    ),
    do(
        "describe-while-busy",
        "2.4 jobQueueStatus",
        {"do": "sleep", "s": 2},
        model="narrow",
        meanwhile=_manage("x", "", "GET", "/models/narrow"),
    ),
    do(
        "exit-while-queued",
        "9.3 death while serving",
        {"do": "exit-late", "s": 1},
        model="narrow",
        meanwhile=do("x", "", {"value": "later"}, model="narrow", timeout_s=30),
    ),
    _manage("narrow-back", "9.3 restart", "GET", "/models/narrow", until='"READY"'),
    do(
        "unregister-in-flight",
        "1.5 unregister in flight",
        {"do": "sleep", "s": 2},
        model="ticket",
        timeout_s=8,
        meanwhile=_manage("x", "", "DELETE", "/models/ticket"),
    ),
    _manage("scale-kitchen-away", _NO_WORKER, "PUT", "/models/kitchen?min_worker=0&synchronous=true"),
    do("no-worker", _NO_WORKER, {"value": 1}),
    ask("no-worker-version", _NO_WORKER, "/predictions/kitchen/1.0", data={"value": 1}, method="POST"),
    ask("no-worker-explain", _NO_WORKER, "/explanations/kitchen", data={"value": 1}, method="POST"),
    _manage("no-worker-describe", "2.4 customized", "GET", "/models/kitchen?customized=true"),
    Case("no-worker-ping", "1.2 health rule", "/ping"),
    _manage("scale-kitchen-back", "1.5 loading", "PUT", "/models/kitchen?min_worker=1"),
    do("while-loading", "1.5 loading", {"value": "served"}, timeout_s=60),
)
