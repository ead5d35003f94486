"""More peers than a broker may have: it goes on with those that it has, and takes others when there is room again."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.broker_fakes import WAIT_S, BrokerProcess, FakeAdmin
from tests.ports import free_port
from zts.broker.accept_guard import hidden_name, spare_descriptors
from zts.clock import monotonic
from zts.settings import Endpoints

LIMIT = 1600  # below it, a loaded machine may wake the guard too late
FULL = "no further peer can connect"


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 2 * LIMIT)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def broker() -> Iterator[BrokerProcess]:
    made = BrokerProcess().start()
    FakeAdmin(made.endpoints).close()
    yield made
    print(made.log())
    made.close()


def until(condition: Callable[[], bool]) -> None:
    gives_up_at = monotonic() + WAIT_S
    while not condition():
        assert monotonic() < gives_up_at


def raw(path: Path, kept: list[socket.socket]) -> None:
    connection = socket.socket(socket.AF_UNIX)
    kept.append(connection)
    connection.settimeout(WAIT_S)
    connection.connect(str(path))


@pytest.mark.parametrize("name", ["client", "worker", "control", "event"])
def test_a_broker_without_descriptors_keeps_its_peers_and_takes_others_later(broker: BrokerProcess, name: str) -> None:
    process = psutil.Process(broker.process.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (LIMIT, LIMIT))
    admin = FakeAdmin(broker.endpoints)
    path = Path(getattr(broker.endpoints, name).removeprefix("ipc://"))
    kept: list[socket.socket] = []
    with contextlib.suppress(FileNotFoundError):  # it is full
        while len(kept) < LIMIT:
            raw(path, kept)
            with contextlib.suppress(ConnectionResetError):
                kept[-1].recv(1)  # libzmq greets whom it has accepted
            if len(kept) % 10 == 0:
                assert admin.ask("status")[0] == 200
    until(lambda: process.num_fds() <= LIMIT - spare_descriptors(LIMIT) + 1)
    assert Path(hidden_name(str(path))).is_socket()
    with pytest.raises(FileNotFoundError):
        raw(path, kept)
    assert admin.ask("status")[0] == 200
    for connection in kept:
        connection.close()
    until(path.is_socket)
    late = FakeAdmin(broker.endpoints)
    assert late.ask("status")[0] == 200 == admin.ask("status")[0]
    late.close()
    admin.close()
    assert broker.log().count(FULL) == 1


def test_over_tcp_connections_above_the_bound_are_ended(broker: BrokerProcess) -> None:
    broker.kill()
    names = ("client", "worker", "control", "event")
    at = {name: f"tcp://127.0.0.1:{free_port()}" for name in names}
    values = {**broker.settings.to_map(), "endpoints": at}
    (broker.path / "settings.json").write_text(json.dumps(values))
    broker.endpoints = Endpoints(**at)
    broker.start()
    admin = FakeAdmin(broker.endpoints)
    assert admin.ask("status")[0] == 200
    process = psutil.Process(broker.process.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (LIMIT, LIMIT))
    kept: list[socket.socket] = []
    address = ("127.0.0.1", int(at["client"].rpartition(":")[2]))
    is_ended = False
    while not is_ended and len(kept) < LIMIT:
        connection = socket.create_connection(address, WAIT_S)
        kept.append(connection)
        # libzmq greets each peer with ten bytes; one that is ended may see none of them.
        try:
            greeting = connection.recv(64)
            if len(kept) < LIMIT // 2:
                continue
            connection.settimeout(0.02)
            is_ended = not greeting or not connection.recv(64)
        except TimeoutError:
            pass
        except ConnectionResetError:
            is_ended = True
    assert is_ended
    until(lambda: process.num_fds() <= LIMIT - spare_descriptors(LIMIT) + 1)
    assert admin.ask("status")[0] == 200
    for connection in kept:
        connection.close()
    admin.close()


def test_files_left_hidden_by_a_killed_broker_do_not_stay(broker: BrokerProcess) -> None:
    path = broker.endpoints.client.removeprefix("ipc://")
    broker.kill()
    Path(path).rename(hidden_name(path))
    broker.start()
    FakeAdmin(broker.endpoints).close()  # it listens
    assert Path(path).is_socket() and not Path(hidden_name(path)).exists()


def test_there_is_always_something_to_spare() -> None:
    for limit in (64, 100, 1600, 20_480, resource.RLIM_INFINITY if resource.RLIM_INFINITY > 0 else 1 << 30):
        assert 24 <= spare_descriptors(limit) <= max(24, limit // 2)
