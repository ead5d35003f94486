"""Who sits at which connection: names that change, and connections that move."""

from __future__ import annotations

from zts.broker.peers import ClientTable


def test_a_client_that_changes_its_name_is_reported_under_its_old_one():
    table = ClientTable(ask_after_s=10.0)
    assert table.hello(b"c1", "alice", now=0.0) is None
    assert table.hello(b"c1", "bob", now=1.0) == "alice"
    assert (table.route("alice"), table.route("bob"), len(table)) == (None, b"c1", 1)


def test_a_client_at_a_new_connection_is_the_same_client():
    table = ClientTable(ask_after_s=10.0)
    table.hello(b"c1", "alice", now=0.0)
    assert table.hello(b"c1", "alice", now=1.0) is None
    assert table.hello(b"c2", "alice", now=2.0) is None
    assert (table.route("alice"), table.heard(b"c1", now=3.0)) == (b"c2", None)
