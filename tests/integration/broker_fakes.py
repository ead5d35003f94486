"""A broker process and hand-made peers for the broker's tests: plain DEALER sockets and the codec, nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import zmq

from zts.broker.worker_key import KEY_FILE
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire import messages as m
from zts.wire.codec import decode, encode
from zts.wire.worker_tokens import worker_token

M = TypeVar("M")
WAIT_S = 10.0


class BrokerProcess:
    """``python -m zts broker``, or with ``broker="embedded"`` the ``zts http`` that is one, in a folder of its own."""

    def __init__(self, **settings: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="zb-", dir="/tmp")
        endpoints = Endpoints.in_folder(self.folder.name)
        any_port = dict.fromkeys(("inference_address", "management_address", "metrics_address"), "http://127.0.0.1:0")
        values = {"heartbeat_s": 0.2, **any_port, **settings}
        self.settings = Settings(runtime_dir=self.folder.name, endpoints=endpoints, **values)
        self.endpoints = endpoints
        self.path = Path(self.folder.name)
        self._settings_file = self.path / "settings.json"
        self._settings_file.write_text(json.dumps(self.settings.to_map()))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> BrokerProcess:
        command = self.command()
        with open(self.path / "log", "ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        return self

    def command(self) -> list[str]:
        role = "http" if self.settings.broker == "embedded" else "broker"
        return [sys.executable, "-m", "zts", role, "--settings", str(self._settings_file)]

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def log(self) -> str:
        return (self.path / "log").read_text()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.folder.cleanup()


class FakePeer:
    """One DEALER socket and blocking helpers with a deadline."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.endpoint = endpoint
        self.socket = self._connect()

    def _connect(self) -> zmq.Socket[bytes]:
        made = self.context.socket(zmq.DEALER)
        made.linger = 0
        made.set(zmq.RECONNECT_IVL, 20)
        made.connect(self.endpoint)
        return made

    def reconnect(self) -> None:
        """Come back over a new connection."""
        self.socket.close()
        self.socket = self._connect()

    def send(self, message: m.Message) -> None:
        self.socket.send_multipart(encode(message))

    def receive(self, timeout_s: float = WAIT_S) -> m.Message:
        if not self.socket.poll(int(timeout_s * 1000)):
            raise TimeoutError(f"nothing came on {self.endpoint}")
        return decode(self.socket.recv_multipart())

    def expect(self, kind: type[M], where: Callable[[M], bool] = lambda _: True, timeout_s: float = WAIT_S) -> M:
        """Return the next message of ``kind`` for which ``where`` holds; drop others."""
        until = time.monotonic() + timeout_s
        while True:
            message = self.receive(max(0.0, until - time.monotonic()))
            if isinstance(message, kind) and where(message):
                return message

    def close(self) -> None:
        self.socket.close()


class FakeAdmin(FakePeer):
    """Asks and waits for the reply."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(endpoints.control)
        self._number = 0
        self.hello()

    def hello(self) -> None:
        self.send(m.Hello("admin", f"admin-{id(self)}", 1))
        self.expect(m.Welcome)

    def send_request(self, verb: str, **args: Any) -> int:
        self._number += 1
        self.send(m.Request(self._number, verb, 0, args))
        return self._number

    def reply(self, number: int, timeout_s: float = WAIT_S) -> tuple[int, Mapping[str, Any]]:
        found = self.expect(m.Reply, lambda reply: reply.request_id == number, timeout_s)
        return found.status, found.body

    def ask(self, verb: str, **args: Any) -> tuple[int, Mapping[str, Any]]:
        return self.reply(self.send_request(verb, **args))

    def wait_for_worker(self, state: str, model: str = "noop") -> Mapping[str, Any]:
        """Return the first worker of ``model`` that is in ``state``, as soon as there is one."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            status, body = self.ask("models.describe", model=model)
            if status == 200:
                for worker in body["versions"][0]["workers"]:
                    if worker["state"] == state:
                        return worker  # type: ignore[no-any-return]
            time.sleep(0.01)
        raise TimeoutError(f"no worker of {model} became {state}: {body}")


class FakeNode(FakePeer):
    """Answers model.prepare and keeps the last list of wanted workers."""

    def __init__(self, endpoints: Endpoints, spec: ModelSpec, workers: int = 1, node_id: str = "node-1") -> None:
        super().__init__(endpoints.control)
        self.spec, self.workers, self.node_id = spec, workers, node_id
        self.running: list[Mapping[str, Any]] = []

    def hello(self) -> None:
        self.send(m.Hello("node", self.node_id, 1, {"hostname": "here", "pid": 1, "workers": self.running}))
        self.expect(m.Welcome)

    def serve_prepare(self) -> None:
        request = self.expect(m.Request, lambda request: request.verb == "model.prepare")
        self.send(m.Reply(request.request_id, 200, {"spec": self.spec.to_map(), "workers": self.workers}))

    def wanted(self, count: int) -> list[str]:
        """Return the ids of the wanted workers once there are ``count``."""
        desire = self.expect(m.Desire, lambda desire: len(desire.slots) == count)
        return [slot["worker_id"] for slot in desire.slots]

    def report(self, worker_id: str, epoch: int, event: str, reason: str = "", **detail: Any) -> None:
        self.send(m.StateReport(worker_id, epoch, event, reason, detail))

    def beat(self, **workers: Mapping[str, Any]) -> None:
        self.send(m.Beat(self.node_id, 1, {"workers": workers}))


class FakeWorker:
    """Two sockets of one worker; answers batches with what they held."""

    def __init__(self, endpoints: Endpoints, worker_id: str, spec: ModelSpec, *, epoch: int = 1, node: str = "node-1"):
        self.control = FakePeer(endpoints.control)
        self.data = FakePeer(endpoints.worker)
        self.worker_id, self.spec, self.epoch, self.node = worker_id, spec, epoch, node
        self.key_file = Path(endpoints.control.removeprefix("ipc://")).parent / KEY_FILE

    def token(self) -> str:
        """Return what the node agent would have handed over."""
        key = self.key_file.read_bytes() if self.key_file.exists() else b""
        return worker_token(key, self.worker_id, self.epoch, self.spec.name, self.spec.version)

    def control_hello(self, state: str = "loading", **info: Any) -> None:
        base = {"model": self.spec.name, "version": self.spec.version, "pid": 77, "node": self.node, "state": state}
        base["token"] = self.token()
        self.control.send(m.Hello("worker", self.worker_id, self.epoch, {**base, **info}))

    def data_hello(self) -> None:
        info = {"model": self.spec.name, "version": self.spec.version, "batch_size": self.spec.batch_size}
        info["token"] = self.token()
        self.data.send(m.Hello("worker", self.worker_id, self.epoch, info))

    def become_ready(self) -> None:
        self.control_hello()
        self.control.expect(m.Welcome)
        self.control.send(m.StateReport(self.worker_id, self.epoch, "loaded", "", {}))
        self.data_hello()
        self.data.expect(m.Welcome)

    def beat(self, **info: Any) -> None:
        self.control.send(m.Beat(self.worker_id, self.epoch, info))

    def answer_batch(self) -> m.Batch:
        """Take one BATCH and answer each item with its own body."""
        batch = self.data.expect(m.Batch)
        rows = [m.Result(item.item_id, 200, b"", bytes(item.body)) for item in batch.rows]
        self.data.send(m.Outcomes(self.worker_id, batch.epoch, 10, len(rows), rows))
        return batch

    def close(self) -> None:
        self.control.close()
        self.data.close()


class FakeClient(FakePeer):
    """Sends jobs and collects results."""

    def __init__(self, endpoints: Endpoints, client_id: str = "client-1") -> None:
        super().__init__(endpoints.client)
        self.client_id = client_id

    def hello(self) -> m.Welcome:
        self.send(m.Hello("client", self.client_id, 1))
        return self.expect(m.Welcome)

    def jobs(self, *bodies: bytes, model: str = "noop", first: int = 1) -> None:
        self.send(m.Jobs([m.Job(first + i, model, "", m.NORMAL, 0, b"", body) for i, body in enumerate(bodies)]))

    def results(self, count: int) -> dict[int, tuple[int, bytes]]:
        found: dict[int, tuple[int, bytes]] = {}
        while len(found) < count:
            for row in self.expect(m.Results).rows:
                found[row.item_id] = (row.status, bytes(row.body))
        return found
