"""The node agent process: one per host. Its loop decodes, asks ``Agent``, does what it wants. Layer 3.

It runs in the main thread and waits in one poll on the broker, all processes (pidfds and pipes), signals and the
store's threads. A broker that is gone changes nothing for the workers; the agent knocks until there is one again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from zts.clock import monotonic, wall_time_s
from zts.errors import LocalProtocolError, ServerError, ZtsError
from zts.masking import without_secrets_of
from zts.ownership import make_private_folder
from zts.settings import Settings
from zts.signals import STOP_SIGNALS, is_wanted
from zts.wire import messages as m
from zts.wire.frames import Role
from zts.wire.worker_tokens import worker_token
from zts.workers.node import events as ev
from zts.workers.node import venvs
from zts.workers.node.agent import Agent
from zts.workers.node.broker_session import BrokerLink
from zts.workers.node.gpus import Figures, cpu_cores, find_gpus
from zts.workers.node.metrics import NodeMetrics
from zts.workers.node.model_users import account_of, log_rights
from zts.workers.node.placement import Placement
from zts.workers.node.processes import Processes, worker_command, worker_environment
from zts.workers.node.store import ModelStore, Prepared
from zts.workers.options import WorkerOptions

__all__ = ["Node", "run"]

_log = logging.getLogger("zts.node")
_DEFAULT_HEARTBEAT_S: Final = 1.0


class _Asked(NamedTuple):
    """A ``model.prepare`` in progress; its answer is worth nothing to another broker."""

    broker_id: str
    request_id: int


class _Missing(NamedTuple):
    """An archive that the agent itself wants unpacked."""

    files_id: str
    label: str


class Node:
    """The node agent of this host.

    Args:
        settings: Endpoints, model store, runtime folder and defaults.
        command: Makes a worker's command line; tests put in stubs.
        environ: The environment that workers inherit from.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Callable[[WorkerOptions], list[str]] = worker_command,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._environ = dict(os.environ if environ is None else environ)
        self._gpus = find_gpus(self._environ, settings.number_of_gpu)
        self._epoch = int(wall_time_s() * 1000)
        hostname = socket.gethostname()
        # The same after a restart, and another one for a second agent on this host.
        instance = hashlib.sha256(os.path.abspath(settings.runtime_dir).encode()).hexdigest()[:8]
        self.node_id = f"{hostname[:200]}-{instance}"
        self._poller = zmq.Poller()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller.register(self._wake_read, zmq.POLLIN)
        self._stops_asked = 0
        self._stops_told = 0
        self._agent = Agent(
            placement=Placement(len(self._gpus)),
            rng=random.Random(),  # noqa: S311 - jitter
            wall_clock=wall_time_s,
            cores=cpu_cores(),
            cpu_threads=settings.cpu_threads,
            drain_timeout_s=settings.drain_timeout_s,
        )
        self._pids: list[int] = []  # of the workers; another thread reads it
        self._metrics = NodeMetrics(
            settings,
            gpu_count=len(self._gpus),
            pids=lambda: self._pids,
            wake=self._wake,
        )
        self._processes = Processes(
            watch=lambda fd: self._poller.register(fd, zmq.POLLIN),
            unwatch=self._poller.unregister,
            command=command,
            on_metrics=self._metrics.take_lines,
        )
        self._store = ModelStore(settings, gpu_count=len(self._gpus), wake=self._wake)
        self._figures = Figures()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = BrokerLink(
            self._context,
            settings.endpoints.control,
            self._hello,
            silence_s=max(1.0, settings.heartbeat_s * settings.heartbeat_misses),
        )
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._broker_id = ""
        self._worker_key = b""
        self._owed: list[m.Reply] = []  # to a broker that is silent
        self._heartbeat_s = settings.heartbeat_s or _DEFAULT_HEARTBEAT_S
        self._beat_due = 0.0

    # ------------------------------------------------------------ life

    def stop(self) -> None:
        """Begin to drain and leave; the second call kills. From any thread or a signal handler."""
        self._stops_asked += 1
        self._wake()

    def run(self) -> int:
        """Work until stopped and return the exit code; no process is left behind, whatever happens."""
        _log.info("node %s: %d cores, %d GPUs", self.node_id, cpu_cores(), len(self._gpus))
        self._metrics.start()
        try:
            while not self._agent.is_stopped:
                self._tick()
            self._link.send(m.Goodbye(self.node_id, self._epoch, "stopped"))
        finally:
            self._metrics.stop()
            self._processes.kill_all()
            self._store.close()
            self._link.close()
            self._context.term()
            for fd in (self._wake_read, self._wake_write):
                os.close(fd)
            self._wake_write = -1
        return 0

    def _wake(self) -> None:
        # A full pipe wakes as well; a closed one belongs to a node that has ended.
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def _tick(self) -> None:
        now = monotonic()
        deadline = min(self._link.next_deadline(), self._agent.next_deadline() or self._link.next_deadline())
        if self._link.is_welcome:
            deadline = min(deadline, self._beat_due, self._metrics.next_deadline() or self._beat_due)
        ready = dict(self._poller.poll(max(0, round((deadline - now) * 1000) + 1)))
        if self._wake_read in ready:
            self._woken()
        if self._link.socket in ready:
            for message in self._link.receive(monotonic()):
                self._take(message)
        for fd in ready:
            if isinstance(fd, int):
                exited = self._processes.readable(fd)
                if exited is not None:
                    self._feed(exited)
        self._keep_up()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._stops_told < self._stops_asked:
            self._stops_told += 1
            _log.info("stopping%s", " at once" if self._stops_told > 1 else ": workers finish what they hold")
            if self._link.is_welcome:
                self._beat(self._beat_info())  # it says "stopping", so that the broker places nothing new here
            self._feed(ev.StopAsked())
        for done in self._store.take():
            self._prepared(done)
        self._metrics.collect()

    def _keep_up(self) -> None:
        now = monotonic()
        if self._link.keep_up(now):
            _log.warning("the broker is silent; workers go on, trying to reach it again")
        due = self._agent.next_deadline()
        if due is not None and due <= now:
            self._feed(ev.TimePassed())
        if self._link.is_welcome and now >= self._beat_due:
            self._beat_due = now + self._heartbeat_s
            self._beat(self._beat_info())
        metrics_due = self._metrics.next_deadline()
        if self._link.is_welcome and metrics_due is not None and now >= metrics_due:
            self._beat({})

    # ------------------------------------------------------------ what we say

    def _beat(self, info: dict[str, Any]) -> None:
        metrics = self._metrics.beat_info()
        try:
            is_sent = self._link.send(m.Beat(self.node_id, self._epoch, {**info, **metrics}))
        except LocalProtocolError as exc:
            # Without its beats the node would count as gone, and its workers with it.
            _log.error("the metrics of %d families cannot be told: %s", len(metrics.get("metrics", ())), exc)
            is_sent = self._link.send(m.Beat(self.node_id, self._epoch, info))
        if not is_sent:
            self._metrics.forget_told()

    def _hello(self) -> m.Hello:
        info = {
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "cpu_count": cpu_cores(),
            "gpus": [gpu.name for gpu in self._gpus],
            "model_store": self._settings.model_store,
            "workers": self._agent.snapshot(),
        }
        return m.Hello(Role.NODE, self.node_id, self._epoch, info)

    def _beat_info(self) -> dict[str, Any]:
        devices = self._agent.devices()
        workers = {
            worker_id: {
                "epoch": epoch,
                "pid": pid,
                "rss_bytes": self._figures.rss_bytes(pid),
                "gpu_id": devices.get(worker_id),
            }
            for worker_id, (epoch, pid) in self._processes.living().items()
        }
        self._pids = [pid for _, pid in self._processes.living().values()]
        gpus = [gpu.name for gpu in self._gpus]
        stopping = {"stopping": True} if self._stops_told else {}
        return {"workers": workers, "gpus": gpus, **stopping, **self._figures.host()}

    # ------------------------------------------------------------ what we hear

    def _take(self, message: m.Message) -> None:
        if isinstance(message, m.Welcome):
            _log.info("the broker %s is there", message.broker_id)
            owed, self._owed = self._owed if message.broker_id == self._broker_id else [], []
            self._broker_id = message.broker_id
            key = message.info.get("worker_key")
            self._worker_key = key if isinstance(key, bytes) else b""
            self._store.users.open_sockets()
            for reply in owed:
                self._reply(reply)
            self._metrics.forget_told()
            if message.heartbeat_ms > 0:
                self._heartbeat_s = message.heartbeat_ms / 1000
            self._beat_due = monotonic() + self._heartbeat_s
            self._feed(ev.Welcomed(message.broker_id))
        elif isinstance(message, m.Refused) and message.code != "say_hello":
            _log.warning("the broker refuses this node: %s", message.message)
        elif isinstance(message, m.Desire):
            self._desired(message)
        elif isinstance(message, m.Request):
            self._asked(message)

    def _desired(self, message: m.Desire) -> None:
        try:
            slots = ev.slots_of(message.slots)
        except (ZtsError, AttributeError, LookupError, TypeError, ValueError) as exc:
            # Dropping one slot would stop a healthy worker; better do nothing at all.
            _log.error("a list of workers from the broker is not usable: %s", exc)
            return
        self._feed(ev.DesireArrived(message.generation, slots))

    def _asked(self, request: m.Request) -> None:
        args = request.args
        if request.verb == "model.prepare":
            self._store.prepare(_Asked(self._broker_id, request.request_id), args)
        elif request.verb == "model.forget":
            self._feed(ev.ForgetAsked(str(args.get("files_id", ""))))
            self._reply(m.Reply(request.request_id, 200, {}))
        elif request.verb == "worker.kill":
            epoch = args.get("epoch")
            worker_id = str(args.get("worker_id", ""))
            _log.warning("worker %s is to be killed: %s", worker_id, args.get("reason", ""))
            if isinstance(epoch, int):
                self._feed(ev.KillAsked(worker_id, epoch, str(args.get("reason", ""))))
            self._reply(m.Reply(request.request_id, 200, {}))
        else:
            body = {"code": "bad_request", "message": f"a node knows no {request.verb}", "type": "BadRequestException"}
            self._reply(m.Reply(request.request_id, 400, body))

    def _reply(self, reply: m.Reply) -> None:
        """Send ``reply``; one that cannot be sent becomes an error, because somebody waits for it."""
        try:
            if not self._link.send(reply):
                self._owed.append(reply)
        except LocalProtocolError as exc:
            error = ServerError(f"The model's record cannot be sent: {exc.public_message}")
            body = {"code": error.code, "message": error.public_message, "type": error.type_name}
            self._link.send(m.Reply(reply.request_id, error.http_status, body))

    def _prepared(self, done: Prepared) -> None:
        ticket, spec, error = done.ticket, done.spec, done.error
        why = "" if error is None else without_secrets_of(done.url, error.public_message)
        if isinstance(ticket, _Missing):
            if error is not None:
                _log.warning("model %s: %s", ticket.label, why)
                self._feed(ev.PrepareFailed(ticket.files_id, why))
            else:
                self._feed(ev.ModelPrepared(ticket.files_id, done.model_dir))
            return
        if not isinstance(ticket, _Asked) or ticket.broker_id != self._broker_id:
            if spec is not None:
                self._store.remove(spec.files_id)  # who asked for it is gone, and nobody else knows of it
            return
        if spec is not None:
            self._feed(ev.ModelPrepared(spec.files_id, done.model_dir))
        if spec is not None:
            reply = m.Reply(ticket.request_id, 200, {"spec": spec.to_map(), "workers": done.workers})
        else:
            error = error if error is not None else ZtsError("nothing was prepared")
            body = {"code": error.code, "message": why or error.public_message, "type": error.type_name}
            reply = m.Reply(ticket.request_id, error.http_status, body)
        self._reply(reply)

    # ------------------------------------------------------------ the core's actions

    def _feed(self, event: ev.AgentEvent) -> None:
        """Tell the core, do what it wants, and tell it what came of that."""
        events: deque[ev.AgentEvent] = deque([event])
        while events:
            for action in self._agent.handle(events.popleft(), monotonic()):
                outcome = self._do(action)
                if outcome is not None:
                    events.append(outcome)

    def _do(self, action: ev.AgentAction) -> ev.AgentEvent | None:
        if isinstance(action, ev.StartProcess):
            return self._start(action)
        if isinstance(action, ev.ReportState):
            report = action.report
            _log.info("worker %s: %s: %s", report.worker_id, report.event, report.reason)
            self._link.send(report)
        elif isinstance(action, ev.Terminate):
            self._processes.terminate(action.worker_id)
        elif isinstance(action, ev.Kill):
            self._processes.kill(action.worker_id)
        elif isinstance(action, ev.PrepareModel):
            spec = action.spec
            self._store.fetch(_Missing(spec.files_id, f"{spec.name} {spec.version}"), spec)
        elif isinstance(action, ev.RemoveModel):
            self._store.remove(action.files_id)
        return None

    def _start(self, order: ev.StartProcess) -> ev.AgentEvent:
        settings = self._settings
        options = WorkerOptions(
            worker_id=order.worker_id,
            epoch=order.epoch,
            spec=order.spec,
            model_dir=order.model_dir,
            worker_endpoint=settings.endpoints.worker,
            control_endpoint=settings.endpoints.control,
            node_id=self.node_id,
            # The worker sees one GPU only, which is number 0 to it.
            gpu_id=None if order.gpu_id is None else 0,
            cpu_threads=order.cpu_threads,
            heartbeat_s=self._heartbeat_s,
            drain_timeout_s=settings.drain_timeout_s,
            parent_pid=os.getpid(),
            decode_input_request=settings.decode_input_request,
            limit_max_image_pixels=settings.limit_max_image_pixels,
            max_response_bytes=settings.max_response_bytes,
            service_envelope=settings.service_envelope,
            header_key_sequence_id=settings.header_key_sequence_id,
            header_key_sequence_start=settings.header_key_sequence_start,
            header_key_sequence_end=settings.header_key_sequence_end,
            print_metrics=True,
            model_metrics=self._metrics.model_metrics,
            started_at=monotonic(),
            token=worker_token(self._worker_key, order.worker_id, order.epoch, order.spec.name, order.spec.version),
        )
        try:
            environment = venvs.find(Path(order.model_dir), settings)
            if environment is not None:
                options = replace(options, site_dir=environment.site_dir, python=environment.python)
            gpu = None if order.gpu_id is None else self._gpus[order.gpu_id]
            account = account_of(order.spec)
            if account is not None:
                options = replace(options, is_other_user=True)
            scratch = self._store.scratch(order.model_dir, account) if account is not None else ""
            base = self._store.users.variables(account, self._environ, scratch)
            env = worker_environment(options, base=base, gpu=gpu, hide_gpus=bool(self._gpus))
            pid = self._processes.start(options, env, account)
            log_rights(order.worker_id, pid, order.spec, account)
        except (OSError, ZtsError) as exc:
            reason = f"the process could not be started: {exc}"
            return ev.StartFailed(order.worker_id, order.epoch, reason)
        return ev.ProcessStarted(order.worker_id, order.epoch, pid)


def run(settings: Settings) -> int:
    """Run the node agent in this (main) thread until SIGTERM or SIGINT; return the exit code.

    Raises:
        ConfigError: If the runtime folder cannot be made, or other users could have made it.
    """
    make_private_folder(Path(settings.runtime_dir))
    node = Node(settings)
    for number in filter(is_wanted, STOP_SIGNALS):
        signal.signal(number, lambda *_: node.stop())
    return node.run()
