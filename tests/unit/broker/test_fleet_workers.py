"""Workers' lives as the broker sees them: hello, silence, hanging, return, epochs, nodes that go and come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import NODE, SPEC, WALL, Rig
from zts.broker.fleet import events as f
from zts.broker.roles import STATE_EVENTS
from zts.broker.scheduling import events as e
from zts.lifecycle import TRANSITIONS, WorkerEvent, WorkerState
from zts.wire import messages as m


@pytest.fixture
def rig() -> Rig:
    return Rig()


def moved(number: int, old: str, new: str, event: str, reason: str, epoch: int = 1) -> f.Publish:
    detail = {
        "worker_id": "9000",
        "model": "noop",
        "version": "1.0",
        "from": old,
        "to": new,
        "event": event,
        "reason": reason,
        "epoch": epoch,
    }
    return f.Publish(m.Event(number, WALL, "worker", detail))


def placed(rig: Rig, **args: Any) -> None:
    rig.admin()
    rig.node()
    rig.register(synchronous=False, **args)
    rig.report("9000", "restart", pid=9)


def kills(rig: Rig) -> list[Any]:
    requests = [a.message for a in rig.all if isinstance(a, f.SendControl) and isinstance(a.message, m.Request)]
    return [request.args for request in requests if request.verb == "worker.kill"]


# ---------------------------------------------------------------- coming up


def test_a_worker_is_loading_at_its_first_hello_and_ready_at_the_one_on_the_data_socket(rig: Rig):
    placed(rig)
    rig.worker_hello("9000")
    welcome = m.Welcome("broker-1", 1000)
    assert rig.actions == [
        moved(3, "starting", "loading", "connected", "said hello"),
        f.SendControl(b"c9000", welcome),
    ]
    rig.data_hello("9000")
    assert rig.actions == [
        f.RouteWorker("9000", 1, b"d9000"),
        moved(4, "loading", "ready", "loaded", "model loaded"),
        f.TellScheduler(e.WorkerReady("9000", 1, "noop", "1.0", 4)),
        f.SendWorker(b"d9000", welcome),
    ]


def test_loaded_alone_makes_no_worker_ready(rig: Rig):
    placed(rig)
    rig.worker_hello("9000")
    rig.control(b"c9000", m.StateReport("9000", 1, "loaded", "", {}))
    assert rig.states() == {"9000": "loading"}
    assert rig.told() == []


def test_busy_and_idle_are_published_only_when_somebody_listens(rig: Rig):
    rig.up()
    assert rig.tell(e.BatchSent("9000")) == []
    assert rig.states() == {"9000": "busy"}
    assert rig.tell(e.BatchDone("9000")) == []
    rig.tell(f.SubscribersChanged(1))
    assert rig.tell(e.BatchSent("9000")) == [moved(5, "ready", "busy", "batch_sent", "")]
    assert rig.tell(e.BatchDone("9000")) == [moved(6, "busy", "ready", "batch_done", "")]


def test_the_end_of_a_batch_does_not_end_draining(rig: Rig):
    rig.up()
    rig.tell(e.BatchSent("9000"))
    rig.report("9000", "drain", "asked to")
    rig.tell(e.BatchDone("9000"))
    assert rig.states() == {"9000": "draining"}


@pytest.mark.parametrize("state", list(WorkerState))
@pytest.mark.parametrize("event", list(WorkerEvent))
def test_a_report_moves_a_worker_as_the_table_says_or_not_at_all(state: WorkerState, event: WorkerEvent):
    rig = Rig()
    rig.up()
    worker = rig.fleet._state.workers["9000"]
    worker.state = state
    rig.report("9000", event.value, "why")
    if event not in STATE_EVENTS["node"]:
        assert worker.state is state
    else:
        assert worker.state is TRANSITIONS[state].get(event, state)


# ---------------------------------------------------------------- silence


def test_a_busy_worker_that_does_not_beat_hangs_only_after_its_run_budget_though_its_process_lives(rig: Rig):
    rig.admin()
    rig.node()
    rig.register(replace(SPEC, response_timeout_s=10.0))
    rig.ready("9000")
    rig.tell(e.BatchSent("9000"))
    lives = {"9000": {"epoch": 1, "pid": 9, "rss_bytes": 5}}
    for _ in range(9):
        rig.node_beat(**lives)
        rig.wait(1.0)
    assert rig.states() == {"9000": "busy"}
    rig.wait(1.0)
    assert rig.states() == {"9000": "failed"}
    (kill,) = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    assert (kill.verb, kill.args["worker_id"], kill.args["epoch"]) == ("worker.kill", "9000", 1)
    assert e.WorkerGone("9000", 1, "no beat and no answer for 10 s") in rig.told()


def test_a_broker_that_did_not_run_for_a_while_hears_its_peers_before_it_judges_them(rig: Rig):
    rig.up()
    rig.clock.advance(20.0)
    assert rig.tell(f.Tick()) == []
    assert rig.fleet.next_deadline() == rig.clock.now() + 1.0
    rig.node_beat(**{"9000": {"epoch": 1, "pid": 9, "rss_bytes": 5}})
    rig.wait(2.0)
    assert rig.states() == {"9000": "ready"}
    rig.wait(4.0)
    assert rig.states() == {"9000": "lost"}


def test_an_idle_worker_that_does_not_beat_is_left_alone_while_its_process_lives(rig: Rig):
    rig.admin()
    rig.node()
    rig.register(replace(SPEC, response_timeout_s=5.0))
    rig.ready("9000")
    for _ in range(20):
        rig.node_beat(**{"9000": {"epoch": 1, "pid": 9, "rss_bytes": 5}})
        rig.wait(1.0)
    assert rig.states() == {"9000": "ready"}


def test_a_hung_process_that_lives_on_is_killed_again(rig: Rig):
    rig.up()
    rig.tell(e.BatchSent("9000"))
    rig.worker_beat("9000", running_s=1000.0)
    assert rig.states() == {"9000": "failed"}
    kills = 0
    for _ in range(9):
        rig.node_beat(**{"9000": {"epoch": 1, "pid": 9, "rss_bytes": 5}})
        kills += sum(isinstance(a.message, m.Request) for a in rig.sent(NODE))
        rig.wait(1.0)
    assert kills == 1


def test_a_worker_is_lost_only_when_its_beats_and_its_nodes_word_stay_away(rig: Rig):
    rig.up()
    for _ in range(10):
        rig.node_beat(**{"9000": {"epoch": 1, "pid": 9, "rss_bytes": 5}})
        rig.wait(1.0)
    assert rig.states() == {"9000": "ready"}
    for _ in range(10):
        rig.worker_beat("9000")
        rig.node_beat()
        rig.wait(1.0)
    assert rig.states() == {"9000": "ready"}
    for _ in range(4):
        rig.node_beat()
        rig.wait(1.0)
    assert rig.states() == {"9000": "lost"}
    assert e.WorkerGone("9000", 1, "no sign of life for 4 s") in [
        action.event for action in rig.all if isinstance(action, f.TellScheduler)
    ]


def test_a_lost_worker_that_is_heard_again_serves_again(rig: Rig):
    rig.up()
    rig.wait(4.0)
    assert rig.states() == {"9000": "lost"}
    rig.worker_beat("9000")
    assert rig.states() == {"9000": "ready"}
    assert rig.told() == [e.WorkerReady("9000", 1, "noop", "1.0", 4)]


def test_a_worker_whose_data_connection_is_lost_is_asked_to_say_hello_and_serves_again(rig: Rig):
    rig.up()
    rig.tell(f.DataLost("9000", 1))
    refused = m.Refused("say_hello", "the data connection is gone; say hello on both")
    assert rig.actions == [
        moved(5, "ready", "lost", "silent", "its data connection is gone"),
        f.TellScheduler(e.WorkerGone("9000", 1, "its data connection is gone")),
        f.SendControl(b"c9000", refused),
    ]
    rig.worker_beat("9000")
    assert rig.states() == {"9000": "lost"}
    rig.data_hello("9000", connection=b"new")
    assert rig.states() == {"9000": "ready"}
    assert f.RouteWorker("9000", 1, b"new") in rig.actions


def test_jobs_go_back_when_a_worker_comes_over_another_data_connection(rig: Rig):
    rig.up()
    rig.data_hello("9000", connection=b"new")
    gone = e.WorkerGone("9000", 1, "its data connection was replaced")
    assert rig.told() == [gone, e.WorkerReady("9000", 1, "noop", "1.0", 4)]


def test_the_same_hello_twice_changes_nothing(rig: Rig):
    rig.up()
    rig.data_hello("9000")
    assert rig.told() == []
    assert rig.states() == {"9000": "ready"}


# ---------------------------------------------------------------- hanging


def test_a_worker_that_beats_but_runs_too_long_is_killed_and_its_jobs_go_back(rig: Rig):
    rig.up()
    rig.tell(e.BatchSent("9000"))
    rig.worker_beat("9000", running_s=119.0)
    assert rig.states() == {"9000": "busy"}
    rig.worker_beat("9000", running_s=121.0)
    reason = "a batch ran longer than response_timeout (120 s)"
    assert kills(rig) == [{"worker_id": "9000", "epoch": 1, "reason": reason}]
    assert rig.told() == [e.WorkerGone("9000", 1, reason)]
    assert rig.states() == {"9000": "failed"}


def test_a_worker_that_loads_too_long_is_killed_though_it_beats(rig: Rig):
    placed(rig, spec=replace(SPEC, startup_timeout_s=10.0))
    rig.worker_hello("9000")
    for _ in range(11):
        rig.worker_beat("9000")
        rig.node_beat(**{"9000": {"epoch": 1}})
        rig.wait(1.0)
    assert rig.states() == {"9000": "failed"}
    assert [kill["reason"] for kill in kills(rig)] == ["loading took longer than startup_timeout (10 s)"]


def test_a_process_that_never_says_hello_is_given_up(rig: Rig):
    placed(rig, spec=replace(SPEC, startup_timeout_s=10.0))
    for _ in range(15):
        rig.node_beat(**{"9000": {"epoch": 1}})
        rig.wait(1.0)
    assert rig.states() == {"9000": "lost"}
    assert len(kills(rig)) == 1


# ---------------------------------------------------------------- epochs


def test_reports_beats_and_hellos_of_an_older_process_are_dropped(rig: Rig):
    rig.up()
    rig.report("9000", "died", "killed by signal 9")
    rig.ready("9000", epoch=2)
    rig.report("9000", "died", "late news", epoch=1)
    rig.worker_beat("9000", epoch=1)
    assert rig.states() == {"9000": "ready"}
    rig.worker_hello("9000", epoch=1)
    assert rig.actions == [
        f.SendControl(b"c9000", m.Refused("stale", "this worker process was replaced; it should exit"))
    ]
    assert rig.fleet.snapshot()["counters"]["old_epoch"] == 3


def test_the_hello_of_a_newer_process_implies_the_death_of_the_older(rig: Rig):
    rig.up()
    rig.worker_hello("9000", epoch=2)
    assert rig.told() == [e.WorkerGone("9000", 1, "another process took its place")]
    assert rig.states() == {"9000": "loading"}
    assert rig.fleet.snapshot()["workers"]["9000"]["epoch"] == 2


def test_the_exit_behind_a_load_error_does_not_hide_the_error(rig: Rig):
    placed(rig, at_startup=True)
    rig.worker_hello("9000")
    rig.report("9000", "load_failed", "ImportError: no module named x")
    rig.report("9000", "died", "exit code 1")
    record = rig.answer("models.describe", model="noop").body["versions"][0]
    assert record["workers"][0]["reason"] == "ImportError: no module named x"
    assert len(record["failures"]) == 1


def test_a_worker_that_leaves_by_itself_is_replaced(rig: Rig):
    rig.up()
    rig.report("9000", "drain", "SIGTERM")
    rig.report("9000", "exited")
    assert rig.states() == {"9001": "starting"}
    assert rig.desired() == ["9001"]


# ---------------------------------------------------------------- nodes


def test_missing_workers_go_to_the_node_with_the_fewest(rig: Rig):
    rig.admin()
    rig.node()
    rig.node(b"node-b", "b")
    rig.register(workers=3)
    assert rig.desired() == ["9000", "9002"]
    assert rig.desired(b"node-b") == ["9001"]


def test_a_node_that_is_stopping_gets_no_new_workers(rig: Rig):
    rig.up()
    rig.control(NODE, m.Beat("a", 1, {"workers": {"9000": {"epoch": 1}}, "stopping": True}))
    rig.report("9000", "drain", "asked to stop")
    rig.report("9000", "exited")
    assert rig.desired() == []
    assert rig.states() == {}
    rig.node(b"node-b", "b")
    assert rig.desired(b"node-b") == ["9001"]


def test_workers_of_a_silent_node_live_by_their_own_beats_and_dead_ones_are_replaced_elsewhere(rig: Rig):
    rig.up(workers=2)
    rig.node(b"node-b", "b")
    for _ in range(5):
        rig.worker_beat("9000")
        rig.control(b"node-b", m.Beat("b", 1, {}))
        rig.wait(1.0)
    assert rig.fleet.snapshot()["nodes"] == ["b"]
    assert rig.states() == {"9000": "ready", "9002": "starting"}
    assert rig.desired(b"node-b") == ["9002"]


def test_a_node_that_says_goodbye_is_gone_at_once(rig: Rig):
    rig.admin()
    rig.node()
    rig.register(synchronous=False)
    rig.control(NODE, m.Goodbye("a", 1, "SIGTERM"))
    assert rig.fleet.snapshot()["nodes"] == []
    assert rig.states() == {"9000": "lost"}
    assert rig.answer("models.describe", model="noop").status == 200


def test_jobs_are_hopeless_when_no_node_came_for_a_while(rig: Rig):
    rig.up()
    rig.control(NODE, m.Goodbye("a", 1, "SIGTERM"))
    rig.control(b"c9000", m.Goodbye("9000", 1, "its node agent is gone"))
    assert rig.states() == {}
    told = [event for event in rig.told() if isinstance(event, e.WorkersExpected)]
    assert told == []
    rig.wait(11.0)
    reason = "No node agent is connected that could start its workers."
    assert rig.told() == [e.WorkersExpected("noop", "1.0", 0, reason)]


def test_a_restarted_node_gets_its_list_and_its_lost_processes_count_as_dead(rig: Rig):
    rig.up()
    rig.node(b"node-a2", "a", epoch=2)
    assert rig.told() == [e.WorkerGone("9000", 1, "its node agent does not have the process")]
    assert rig.states() == {"9000": "starting"}
    assert rig.desired(b"node-a2") == ["9000"]
    rig.control(b"node-a2", m.StateReport("9000", 1, "restart", "", {"pid": 4}))
    rig.worker_hello("9000", epoch=1)
    rig.data_hello("9000", epoch=1)
    assert rig.states() == {"9000": "ready"}


def test_a_node_that_comes_again_over_another_connection_keeps_its_workers(rig: Rig):
    rig.up()
    running = [{"worker_id": "9000", "epoch": 1, "pid": 9, "state": "ready", "spec": SPEC.to_map()}]
    rig.node(b"node-a2", "a", epoch=1, workers=running)
    assert rig.told() == []
    assert rig.states() == {"9000": "ready"}


def test_a_running_worker_of_an_unknown_model_is_not_on_the_list_of_its_node(rig: Rig):
    running = [{"worker_id": "9000", "epoch": 1, "pid": 9, "state": "ready", "spec": SPEC.to_map()}]
    rig.node(workers=running)
    assert rig.states() == {}
    assert rig.desired() == []


# ---------------------------------------------------------------- workers started by hand


def test_a_worker_started_by_hand_registers_its_model_and_serves(rig: Rig):
    rig.admin()
    rig.worker_hello("host-77", node="", spec=SPEC.to_map())
    assert rig.told() == [e.ModelAdded(SPEC), e.WorkersExpected("noop", "1.0", 1, "")]
    rig.data_hello("host-77")
    assert rig.told() == [e.WorkerReady("host-77", 1, "noop", "1.0", 4)]
    rig.control(b"chost-77", m.Goodbye("host-77", 1, "Ctrl-C"))
    assert rig.states() == {}
    assert e.WorkersExpected("noop", "1.0", 0, "It has no workers.") in rig.told()


def test_a_worker_started_by_hand_without_a_spec_is_refused(rig: Rig):
    rig.worker_hello("host-77", node="")
    refused = m.Refused("no_spec", "a worker started by hand must send its model's spec")
    assert rig.actions == [f.SendControl(b"chost-77", refused)]


def test_a_worker_started_by_hand_is_fenced_when_its_model_is_unregistered(rig: Rig):
    rig.admin()
    rig.worker_hello("host-77", node="", spec=SPEC.to_map())
    rig.data_hello("host-77")
    number = rig.ask("models.unregister", model="noop")
    assert rig.told() == [e.ModelRemoved("noop", "1.0"), e.WorkerDraining("host-77")]
    rig.tell(f.DataLeft("host-77", 1, "drained"))
    rig.control(b"chost-77", m.Goodbye("host-77", 1, "drained"))
    assert rig.reply(number) == m.Reply(number, 200, {})


# ---------------------------------------------------------------- oddities


@pytest.mark.parametrize(
    "message",
    [
        m.Welcome("x", 1),
        m.Jobs([]),
        m.Reply(99, 200, {}),
        m.StateReport("nobody", 1, "loaded", "", {}),
        m.StateReport("9000", 1, "exploded", "", {}),
        m.Beat("a", 1, {"workers": {"9000": 5, "x": {"epoch": "y"}}, "cpu_percent": None}),
        m.Hello("king", "x", 1),
        m.Hello("node", "a", 1, {"workers": [5, {"worker_id": 5}, {"worker_id": "w", "epoch": "x", "spec": 5}]}),
    ],
)
def test_messages_that_make_no_sense_change_nothing(rig: Rig, message: m.Message):
    rig.up()
    rig.control(NODE, message)
    assert rig.fleet.snapshot()["models"] == {"noop": {"default": "1.0", "versions": {"1.0": 1}}}
    assert list(rig.states()) == ["9000"]


def test_the_beats_of_peers_are_answered(rig: Rig):
    rig.up()
    rig.worker_beat("9000")
    assert rig.actions == [f.SendControl(b"c9000", m.Beat("broker-1", 0))]
    rig.node_beat()
    assert rig.actions == [f.SendControl(NODE, m.Beat("broker-1", 0))]
