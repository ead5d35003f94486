"""``zts tune``: the search on a running instance, and that it leaves the models as they were."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.system.conftest import Server, make_archive, wait_for

# A call costs 20 ms whatever the batch, so the largest batch is the best setting. Its archive asks for another one.
SLEEPING = """
import time
def handle(data, context):
    if data is None:
        return None
    time.sleep(0.02)
    return [b"done"] * len(data)
"""
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 1\nresponseTimeout: 7\n"
QUICK = ("--duration", "0.4", "--warmup", "0.1", "--workers", "1", "--windows", "learnt")


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Iterator[Server]:
    made = make_server("--models", "sleeping.mar")
    make_archive(made.store, "sleeping", SLEEPING, config=CONFIG)
    made.start()
    yield made
    listed = made.manage("GET", "/models").json()["models"]
    assert [model["modelName"] for model in listed] == ["sleeping"]
    record = made.manage("GET", "/models/sleeping").json()[0]
    assert (record["batchSize"], record["maxBatchDelay"], len(record["workers"])) == (2, 1, 1)
    assert made.predict("sleeping").body == b"done"


@pytest.mark.separate_only("about the search, over the same sockets")
def test_the_largest_batch_wins_for_a_model_whose_calls_cost_the_same(server: Server) -> None:
    done = server.run("tune", "sleeping", "--p99", "1s", *QUICK, "--batch-sizes", "1,16", "--concurrency", "16")
    assert done.returncode == 0, done.stderr
    table, lines = done.stdout.split("Write into model-config.yaml of sleeping")
    assert table.splitlines()[0].split()[:3] == ["batch", "window", "workers"]
    assert lines.split("\n\n")[1].splitlines()[:3] == ["minWorkers: 1", "maxWorkers: 1", "batchSize: 16"]
    assert "batchPolicy: adaptive" in lines
    assert "batch 16, window learnt, 1 worker, 16 in flight" in done.stderr


@pytest.mark.separate_only("about the search, over the same sockets")
def test_a_goal_below_one_call_is_not_reachable_and_the_nearest_setting_is_shown(server: Server) -> None:
    done = server.run("tune", "sleeping", "--p99", "5ms", *QUICK, "--batch-sizes", "4", "--rest",
                      server.url("inference", ""), "--json")  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["met"], told["goal_p99_ms"], told["best"]["batch_size"]) == (False, 5.0, 4)
    [run] = told["trials"][0]["runs"]
    assert (run["path"], run["concurrency"], run["errors"], run["ok"]) == ("rest", 1, 0, False)
    assert run["p99_ms"] > 20


def test_each_setting_really_runs_and_an_interrupt_removes_the_copy(server: Server) -> None:
    flags = ("--p99", "1s", "--duration", "30", "--batch-sizes", "4", "--windows", "3", "--workers", "2")
    process = subprocess.Popen(
        server.command("tune", "sleeping", *flags), env=server.env(), cwd=server.folder, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: server.predict("sleeping-tune").status == 200, "the copy serves")
        record = server.manage("GET", "/models/sleeping-tune").json()[0]
        assert (record["batchSize"], record["maxBatchDelay"], len(record["workers"])) == (4, 3, 2)
        assert record["responseTimeout"] == 7
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130


@pytest.mark.separate_only("about the search, over the same sockets")
def test_wrong_usage_and_no_broker_are_one_line(server: Server) -> None:
    for flags, code, text in (
        (("missing", "--p99", "5ms"), 2, "missing"),
        (("sleeping", "--p99", "soon"), 2, "is no time above 0"),
        (("sleeping", "--p99", "5ms", "--windows", "0.5ms"), 2, "whole ms"),
        (("sleeping", "--p99", "5ms", "--batch-sizes", "0"), 2, "from 1 up"),
        (("sleeping", "--p99", "5ms", "--control-address", f"ipc://{server.folder}/none"), 3, "zts tune: "),
    ):
        done = server.run("tune", *flags)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1), done.stderr
        assert text in done.stderr
