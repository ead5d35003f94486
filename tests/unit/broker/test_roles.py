"""Who may say what: the table against what the fleet does, credentials, tokens of workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import ADMIN, NODE, SPEC, FakeLoad, Rig
from zts.broker import roles
from zts.broker.fleet import events as f
from zts.broker.fleet.core import Fleet
from zts.broker.fleet.requests import MAX_OPEN_REQUESTS
from zts.broker.local import LOCAL_CONNECTION
from zts.broker.peers import ClientTable
from zts.broker.roles import CLIENT, CONTROL, EVENT, EVENT_FIELDS, SAYS, STATE_EVENTS, WORKER, Access
from zts.lifecycle import WorkerEvent
from zts.wire import messages as m
from zts.wire.codec import ENCODERS
from zts.wire.frames import MAX_EPOCH
from zts.wire.worker_tokens import is_worker_token, worker_token

KEY = b"k" * 32
OWN = Access(frozenset({0, 1000}))
SHARED = Access(frozenset({0, 1000}), frozenset({2000}))


def keyed_rig() -> Rig:
    rig = Rig()
    settings, wall = rig.fleet._state.settings, rig.fleet._state.wall
    rig.fleet = Fleet(settings, "b", FakeLoad(), broker={}, wall=wall, now=100.0, worker_key=KEY)
    return rig


def token(worker_id: str = "9000", epoch: int = 1, model: str = "noop", version: str = "1.0") -> str:
    return worker_token(KEY, worker_id, epoch, model, version)


# ---------------------------------------------------------------- the table


def test_every_message_of_a_peer_is_somebodys_and_none_of_the_brokers_is() -> None:
    said = frozenset().union(*SAYS.values())
    of_the_broker = {m.Welcome, m.Refused, m.Results, m.Batch, m.Fence, m.Desire, m.Event}
    assert set(ENCODERS) == said | of_the_broker and not said & of_the_broker
    for (socket, role), kinds in SAYS.items():
        assert {m.Hello, m.Beat, m.Goodbye} <= kinds, (socket, role)
    assert [role for (_, role), kinds in SAYS.items() if m.Request in kinds] == ["http", "admin"]
    assert [role for (_, role), kinds in SAYS.items() if m.Reply in kinds] == ["node"]
    assert [socket for (socket, _), kinds in SAYS.items() if m.Outcomes in kinds] == [WORKER]
    assert {socket for (socket, _), kinds in SAYS.items() if m.Jobs in kinds} == {CLIENT}


def test_what_only_the_broker_can_find_out_is_reported_by_nobody() -> None:
    brokers = {WorkerEvent.BATCH_SENT, WorkerEvent.BATCH_DONE, WorkerEvent.SILENT, WorkerEvent.HUNG}
    for events in STATE_EVENTS.values():
        assert not events & {*brokers, WorkerEvent.RETURNED, WorkerEvent.CONNECTED}


@pytest.mark.parametrize("role", ["worker", "node", "http", "admin"])
@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind is not m.Hello])
def test_the_control_socket_takes_what_the_table_says(role: str, kind: type) -> None:
    rig = Rig()
    rig.up()
    connection = {"worker": b"c9000", "node": NODE, "admin": ADMIN, "http": b"h"}[role]
    if role == "http":
        rig.control(connection, m.Hello("http", "h", 1))
    message = next(each for each in samples() if type(each) is kind)
    rig.control(connection, message)
    refused = m.Refused("not_allowed", roles.not_for_you(CONTROL, role, message))
    is_refused = f.SendControl(connection, refused) in rig.actions
    assert is_refused is (kind not in SAYS[CONTROL, role])
    if is_refused:
        assert rig.actions == [f.SendControl(connection, refused)]


def samples() -> list[m.Message]:
    row = m.Result(1, 200, b"", b"x")
    return [
        *(m.Welcome("b", 1), m.Refused("c", "t"), m.Beat("9000", 1), m.Goodbye("?", 5, ""), m.Cancel([1]), m.Fence(1)),
        *(m.Jobs([m.Job(1, "noop", "", 1, 0, b"", b"x")]), m.Results([row]), m.Chunks("9000", 1, [row])),
        *(m.Batch(1, [m.WorkItem(1, 0, b"", b"x")]), m.Outcomes("9000", 1, 1, 1, [row]), m.Desire(1, [])),
        *(m.StateReport("9000", 1, "drain", ""), m.Request(1, "health", 0), m.Reply(1, 200), m.Event(1, 0.0, "k")),
    ]


# ---------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("socket", "role", "uid", "access", "is_welcome"),
    [
        (CLIENT, "client", 1000, OWN, True),
        (CLIENT, "client", None, OWN, True),  # TCP
        (CLIENT, "client", 2000, OWN, False),
        (CLIENT, "client", 2000, SHARED, False),
        (CLIENT, "admin", 1000, OWN, False),
        (CLIENT, "worker", 0, OWN, False),
        (CONTROL, "admin", 0, SHARED, True),
        (CONTROL, "admin", 2000, SHARED, False),
        (CONTROL, "http", 2000, SHARED, False),
        (CONTROL, "node", 2000, SHARED, False),
        (CONTROL, "client", 1000, OWN, False),
        (CONTROL, "worker", 2000, SHARED, True),  # with a token, as the fleet looks at
        (CONTROL, "worker", 2000, OWN, False),
        (CONTROL, "admin", None, SHARED, False),
        (WORKER, "worker", 2000, SHARED, True),
        (WORKER, "worker", 3000, SHARED, False),
        (WORKER, "node", 1000, SHARED, False),
        (EVENT, "client", 0, OWN, False),
    ],
)
def test_who_is_welcome_where(socket: str, role: str, uid: int | None, access: Access, is_welcome: bool) -> None:
    refusal = roles.why_not_welcome(socket, m.Hello(role, "p", 1), uid, access)
    assert (refusal == "") is is_welcome, refusal


def test_a_hello_without_a_name_or_with_an_epoch_that_leaves_no_room_is_refused() -> None:
    assert roles.why_not_welcome(CONTROL, m.Hello("admin", "", 1), 0, OWN)
    for role in ("worker", "node"):
        assert not roles.why_not_welcome(CONTROL, m.Hello(role, "x", MAX_EPOCH), 0, OWN)
        assert roles.why_not_welcome(CONTROL, m.Hello(role, "x", MAX_EPOCH + 1), 0, OWN)


def test_only_the_sockets_of_workers_are_open_to_models_users() -> None:
    assert {socket for socket in (CLIENT, WORKER, CONTROL, EVENT) if 2000 in SHARED.users(socket)} == {WORKER, CONTROL}
    assert OWN.users(WORKER) == {0, 1000}


@pytest.mark.parametrize(
    ("address", "uid"),
    [("localhost:5:6:7", 5), (":5:6:7", 5), ("", None), ("::1", None), ("127.0.0.1", None), ("x:y:6:7", None)],
)
def test_the_user_stands_at_the_end_of_what_zeromq_tells(address: str, uid: int | None) -> None:
    assert roles.uid_of(address) == uid


# ---------------------------------------------------------------- tokens


def test_a_token_is_of_one_process_only() -> None:
    assert is_worker_token(token(), KEY, "9000", 1, "noop", "1.0")
    for changed in ({"worker_id": "9001"}, {"epoch": 2}, {"model": "other"}, {"version": "2.0"}):
        assert not is_worker_token(token(**changed), KEY, "9000", 1, "noop", "1.0")  # type: ignore[arg-type]
    assert token("9", 1, "ab", "c") != token("9", 1, "a", "bc")
    for given in (None, "", 5, b"x", [], token()[:-1], token() + "0", "\ud800", "é"):
        assert not is_worker_token(given, KEY, "9000", 1, "noop", "1.0")
    assert not is_worker_token("", b"", "9000", 1, "noop", "1.0")


def test_node_agents_are_told_the_key_and_nobody_else() -> None:
    rig = keyed_rig()
    for connection, role in ((NODE, "node"), (ADMIN, "admin"), (b"h", "http"), (b"w", "worker")):
        rig.control(connection, m.Hello(role, "a", 1, {"workers": [], "spec": SPEC.to_map()}))
        (welcome,) = [sent.message for sent in rig.sent(connection) if isinstance(sent.message, m.Welcome)]
        assert welcome.info == ({"worker_key": KEY} if role == "node" else {})


def keyed_and_up() -> Rig:
    rig = keyed_rig()
    rig.admin()
    rig.node()
    rig.register()
    rig.report("9000", "restart", pid=9)
    return rig


def test_a_worker_with_its_token_becomes_ready() -> None:
    rig = keyed_and_up()
    rig.worker_hello("9000", token=token())
    rig.tell(f.DataHello(b"d", m.Hello("worker", "9000", 1, {"batch_size": 4, "token": token()})))
    assert rig.states() == {"9000": "ready"}


@pytest.mark.parametrize("given", [None, "x", token("9001"), token(epoch=2), token(model="other")])
def test_without_its_token_it_is_refused_on_both_sockets(given: Any) -> None:
    rig = keyed_and_up()
    rig.worker_hello("9000", token=given)
    assert [sent.message.code for sent in rig.sent(b"c9000")] == ["not_allowed"]  # type: ignore[union-attr]
    for node in ("", "a"):
        info = {"batch_size": 4, "token": given, "node": node, "model": "noop", "version": "1.0"}
        rig.tell(f.DataHello(b"d", m.Hello("worker", "9000", 1, info)))
        assert [type(each.message) for each in rig.of(f.SendWorker)] == [m.Refused]
    assert not rig.of(f.RouteWorker)
    assert rig.states() == {"9000": "starting"}


def test_a_worker_by_hand_needs_none_but_is_nobodys_elses_user() -> None:
    rig = keyed_rig()
    hello = m.Hello("worker", "hand", 1, {"node": "", "model": "noop", "version": "1.0", "spec": SPEC.to_map()})
    rig.tell(f.ControlArrived(b"c", hello, is_confined=True))
    assert [sent.message.code for sent in rig.sent(b"c")] == ["not_allowed"]  # type: ignore[union-attr]
    assert rig.fleet.snapshot()["models"] == {}
    rig.control(b"c", hello)
    assert rig.fleet.snapshot()["workers"]["hand"]["state"] == "loading"


def test_a_models_user_brings_no_model_of_its_own() -> None:
    rig = keyed_rig()
    other = replace(SPEC, name="other")
    info = {"node": "", "model": "noop", "version": "1.0", "spec": other.to_map(), "token": token()}
    for node in ("", 5, []):
        hello = m.Hello("worker", "9000", 1, {**info, "node": node})
        rig.tell(f.ControlArrived(b"c", hello, is_confined=True))
        assert rig.fleet.snapshot()["models"] == {} == rig.fleet.snapshot()["workers"]
    rig.admin()
    rig.node()
    rig.register(spec=other, workers=0)
    rig.tell(f.ControlArrived(b"c", m.Hello("worker", "9000", 1, info), is_confined=True))
    assert rig.fleet.snapshot()["workers"] == {}


def test_what_came_early_without_a_token_is_no_route_and_takes_no_ones_place() -> None:
    rig = keyed_rig()
    rig.admin()
    rig.node()
    data = {"batch_size": 4, "model": "noop", "version": "1.0"}
    rig.tell(f.DataHello(b"true", m.Hello("worker", "9000", 1, {**data, "token": token()})))
    rig.tell(f.DataHello(b"false", m.Hello("worker", "9000", 1, data)))
    rig.tell(f.DataHello(b"false", m.Hello("worker", "9001", 1, data)))
    rig.register(workers=2)
    for worker_id in ("9000", "9001"):
        rig.report(worker_id, "restart", pid=9)
        rig.worker_hello(worker_id, token=token(worker_id))
    assert rig.states() == {"9000": "ready", "9001": "loading"}
    assert [each.connection for each in rig.all if isinstance(each, f.RouteWorker)] == [b"true"]


# ---------------------------------------------------------------- what is bounded and what is shown


def test_events_have_the_fields_of_the_table_with_long_texts_cut() -> None:
    shown = roles.event_detail("worker", {"reason": "r" * 9000, "url": "https://u:p@h", "environ": {}, "epoch": 5})
    assert shown == {"reason": "r" * roles.MAX_REASON_CHARS, "epoch": 5}
    assert roles.event_detail("other", {"reason": "r"}) == {}
    rig = Rig()
    rig.up()
    rig.ask("models.scale", model="noop", min_worker=0, max_worker=0)
    rig.control(NODE, m.Goodbye("a", 1, "r" * 9000))
    published = [action.event for action in rig.all if isinstance(action, f.Publish)]
    assert {event.kind for event in published} == set(EVENT_FIELDS)
    for event in published:
        assert set(event.detail) <= EVENT_FIELDS[event.kind] and len(str(event.detail)) < 3000


def test_requests_that_wait_are_bounded_for_each_connection() -> None:
    rig = Rig()
    rig.admin()
    rig.node()
    numbers = [rig.ask("models.register", url="x.mar") for _ in range(MAX_OPEN_REQUESTS + 1)]
    reply = rig.reply(numbers[-1])
    assert reply is not None and (reply.status, reply.body["code"]) == (503, "queue_full")
    assert rig.reply(numbers[0]) is None
    rig.control(b"other", m.Hello("admin", "other", 1))
    rig.control(b"other", m.Request(1, "health", 0))
    assert any(isinstance(sent.message, m.Reply) for sent in rig.sent(b"other"))
    (first,) = [pending for pending in rig.fleet._state.pending.values() if pending.request_id == 1]
    rig.control(NODE, m.Reply(first.request_id, 500, {"code": "x", "message": "x", "type": "x"}))
    assert rig.answer("health").status == 200  # there is room again
    rig.tell(f.ControlLost(ADMIN))
    assert rig.fleet._state.open_requests == {}


def test_what_is_kept_of_peers_is_bounded() -> None:
    rig = Rig()
    junk = {"junk": "x" * 10_000, "pid": "no", "addresses": ["a" * 1000] * 500 + [5]}
    rig.control(b"h", m.Hello("http", "h", 1, junk))
    kept = rig.fleet._state.peers[b"h"].info
    assert set(kept) == {"pid", "addresses"} and len(str(kept)) < 5000
    for number in range(5):
        rig.control(b"h", m.Beat("h", 1, {"counters": {f"{number}-{n}": 1 for n in range(1000)}, "junk": "x"}))
        rig.control(b"h", m.Goodbye("h", 1, ""))
        rig.control(b"h", m.Hello("http", "h", 1, junk))
    assert len(rig.fleet._state.http_past) <= 256


def test_a_connection_does_not_change_who_it_is() -> None:
    rig = Rig()
    rig.up()
    for role, name in (("admin", "a"), ("node", "b"), ("worker", "9000")):
        rig.control(NODE, m.Hello(role, name, 1, {"workers": []}))
        assert [sent.message for sent in rig.sent(NODE)] == [
            m.Refused("bad_hello", "this connection is node a and stays so")
        ]
    assert rig.states() == {"9000": "ready"}
    rig.control(NODE, m.Hello("node", "a", 1, {"workers": [{"worker_id": "9000", "epoch": 1, "pid": 9}]}))
    assert rig.states() == {"9000": "ready"}


def test_a_refused_hello_of_a_later_epoch_leaves_the_worker_as_it_was() -> None:
    rig = keyed_and_up()
    rig.worker_hello("9000", token=token())
    rig.worker_hello("9000", epoch=2, token=token())
    rig.worker_beat("9000")
    assert [type(sent.message) for sent in rig.sent(b"c9000")] == [m.Beat]


def test_no_routing_id_can_be_that_of_the_local_peer() -> None:
    assert len(LOCAL_CONNECTION) > 255


def test_a_client_that_is_there_is_another_connections_only_with_its_key() -> None:
    table = ClientTable(ask_after_s=10.0)
    assert table.may_be(b"c1", "alice", "")
    table.hello(b"c1", "alice", 0.0, "key")
    assert table.may_be(b"c1", "alice", "") and table.may_be(b"c2", "alice", "key")
    for key in ("", "other", "key ", "\ud800"):
        assert not table.may_be(b"c2", "alice", key)
    table.hello(b"c2", "alice", 1.0, "key")
    assert not table.may_be(b"c1", "alice", "")
    table.lost(b"c2")
    assert table.may_be(b"c1", "alice", "") and not table._keys


def test_a_nodes_list_takes_no_worker_of_another_node_or_of_a_hand() -> None:
    rig = Rig()
    rig.up()
    rig.worker_hello("hand", node="", spec=replace(SPEC, name="own").to_map())
    slots = [{"worker_id": each, "epoch": 1, "spec": {"name": "noop", "version": "1.0"}} for each in ("9000", "hand")]
    rig.node(b"node-b", "b", workers=slots)
    assert rig.fleet.snapshot()["counters"] == {"foreign_worker": 2}
    assert [rig.fleet.snapshot()["workers"][each]["node"] for each in ("9000", "hand")] == ["a", ""]
