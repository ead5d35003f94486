from __future__ import annotations

import math
import random

from zts.broker.fleet.liveness import Deadlines
from zts.broker.peers import ClientTable, WorkerRoutes


def test_a_deadline_that_was_moved_later_does_not_expire_early():
    table: Deadlines[str] = Deadlines()
    table.set("a", 1.0)
    table.set("a", 3.0)
    assert table.expired(2.0) == []
    assert table.expired(3.0) == ["a"]
    assert table.next_deadline() is None


def test_a_deadline_that_was_moved_earlier_expires_at_the_earlier_time():
    table: Deadlines[str] = Deadlines()
    table.set("a", 9.0)
    table.set("a", 1.0)
    assert table.next_deadline() == 1.0
    assert table.expired(1.0) == ["a"]
    assert table.expired(99.0) == []


def test_a_dropped_key_never_expires_and_may_come_again():
    table: Deadlines[str] = Deadlines()
    table.set("a", 1.0)
    table.drop("a")
    assert table.next_deadline() is None
    table.set("a", 2.0)
    assert table.expired(1.5) == []
    assert table.expired(2.0) == ["a"]


def test_expired_keys_are_those_of_a_plain_table_for_random_changes():
    rng = random.Random(7)
    table: Deadlines[int] = Deadlines()
    plain: dict[int, float] = {}
    now = 0.0
    for _ in range(3000):
        key = rng.randrange(20)
        if rng.random() < 0.2:
            table.drop(key)
            plain.pop(key, None)
        else:
            plain[key] = now + rng.random() * 5
            table.set(key, plain[key])
        if rng.random() < 0.3:
            now += rng.random()
            due = sorted(key for key, at in plain.items() if at <= now)
            assert sorted(table.expired(now)) == due
            plain = {key: at for key, at in plain.items() if at > now}
            assert table.due_at > now, "who sleeps until then does not wake for nothing again and again"
        assert table.due_at <= min(plain.values(), default=math.inf)
        first = table.next_deadline()
        assert (first is None) == (not plain)
        if first is not None:
            assert first <= min(plain.values())
    assert len(table) == len(plain)


def test_results_go_to_the_latest_connection_of_a_client():
    table = ClientTable(10.0)
    table.hello(b"1", "alice", 0.0)
    table.hello(b"2", "alice", 1.0)
    assert table.route("alice") == b"2"
    assert table.heard(b"1", 2.0) is None
    assert table.lost(b"1") is None
    assert table.lost(b"2") == "alice"
    assert len(table) == 0


def test_silence_alone_never_ends_a_client_it_is_asked_again_and_again():
    table = ClientTable(4.0)
    table.hello(b"1", "alice", 0.0)
    table.heard(b"1", 5.0)
    assert table.silent(8.0) == []
    asked = [now for now in range(9, 10_000) if table.silent(float(now))]
    assert asked[:3] == [9, 13, 17]
    assert len(asked) == 2498
    assert table.route("alice") == b"1"
    assert table.heard(b"1", 10_000.0) == "alice"


def test_a_lost_connection_is_not_asked_any_more():
    table = ClientTable(4.0)
    table.hello(b"1", "alice", 0.0)
    assert table.lost(b"1") == "alice"
    assert table.silent(99.0) == []
    assert table.next_deadline() is None


def test_a_worker_route_is_of_one_epoch_only():
    routes = WorkerRoutes()
    routes.set("9000", 1, b"old")
    routes.set("9000", 2, b"new")
    assert routes.route("9000", 1) is None
    assert routes.route("9000", 2) == b"new"
    assert routes.owner(b"old") is None
    assert routes.owner(b"new") == ("9000", 2)
    routes.drop("9000")
    assert routes.owner(b"new") is None
