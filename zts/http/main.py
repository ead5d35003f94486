"""The HTTP server process: bind, connect to the broker, serve until SIGTERM, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from zts.allocator import keep_freed_memory
from zts.broker.accept_guard import spare_descriptors
from zts.clock import monotonic
from zts.descriptors import raise_file_limit
from zts.errors import BrokerUnavailable, ConfigError, ServerStopping
from zts.garbage import spare_what_is_here
from zts.http.api.description import ApiDescription, describe_api
from zts.http.api.health import Health
from zts.http.api.inference import Inference, Predictor
from zts.http.api.management import Management
from zts.http.api.metrics import Metrics
from zts.http.api.metrics_log import MetricsLog
from zts.http.api.token_renewal import TokenRoute
from zts.http.app import Application, Surface, Tally
from zts.http.auth import TokenGuard
from zts.http.http1.connection_limit import ConnectionLimit, most_connections
from zts.http.link.embedded import EmbeddedLink
from zts.http.link.interface import BrokerLink
from zts.http.link.zmq import ZmqLink
from zts.http.listen.addresses import BoundAddress, bind_all
from zts.http.listen.servers import Server, make_server
from zts.metrics.definition_file import load_definitions
from zts.ownership import make_private_folder
from zts.settings import Settings
from zts.signals import DRAIN_SIGNAL, STOP_SIGNALS, is_wanted
from zts.stopping import LAST_WORDS_S, REFUSAL, Ending, Step, cut_text

if TYPE_CHECKING:
    from zts.broker.embedded import EmbeddedBroker

__all__ = ["HttpService", "run"]

_log = logging.getLogger("zts.http")

_STOP_POLL_S: Final = 0.02
# At the end: for clients that have just connected to say what they want, and be refused.
_LAST_ARRIVALS_S: Final = 0.05


class HttpService:
    """The servers of one process, on a running loop.

    Args:
        settings: Addresses and limits.
        index: Number of this process among ``http_processes``.
        broker: The broker if it lives in this process; it goes on when the service stops.
    """

    def __init__(self, settings: Settings, index: int, broker: EmbeddedBroker | None = None) -> None:
        self._settings = settings
        self._index = index
        self._broker = broker
        self._tally = Tally()
        self._servers: list[Server] = []
        self._apps: list[Application] = []
        self._bound: list[BoundAddress] = []
        self._link: ZmqLink | EmbeddedLink | None = None
        self._metrics_log: MetricsLog | None = None
        self._is_cut = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind, connect and serve.

        Raises:
            ConfigError: If an address cannot be bound, or keys or certificates cannot be used.
            BrokerUnavailable: If a broker endpoint is no address.
        """
        guard = TokenGuard.of_instance(self._settings, self._index)
        definitions = load_definitions(self._settings.metrics_config)  # before anything is bound: it may be wrong
        self._bound = bind_all(self._settings, self._index)
        self._link = self._make_link()
        self._link.start(loop)
        predictor = Predictor(self._link, self._tally)
        limit = self._connection_limit()
        for row in self._bound:
            metrics = Metrics(self._settings.metrics_mode, definitions, self._link, self._tally.counters)
            app = _application(self._settings, row.surfaces, self._link, predictor, self._tally, guard, metrics)
            server = make_server(self._settings, row, app, loop, limit)
            server.add_sockets(row.sockets)
            self._apps.append(app)
            self._servers.append(server)
            _log.info("%s API on %s", " and ".join(row.surfaces), row.url)
        if self._index == 0 and self._settings.metrics_mode != "prometheus":
            self._metrics_log = MetricsLog(self._settings.metrics_mode, definitions, self._link)
            self._metrics_log.start(loop)
        self._write_addresses()

    def _connection_limit(self) -> ConnectionLimit:
        files = raise_file_limit()
        if self._broker is not None:
            files -= spare_descriptors(files)  # which its sockets leave free, and no more
        most = most_connections(self._settings.max_connections, files)
        return ConnectionLimit(most, self._settings.max_connections_per_address)

    def _make_link(self) -> ZmqLink | EmbeddedLink:
        settings = self._settings
        peer_id = f"http-{self._index}-{uuid4().hex[:12]}"
        info = {"pid": os.getpid(), "addresses": [row.url for row in self._bound]}
        if self._broker is not None:
            return EmbeddedLink(
                broker=self._broker,
                peer_id=peer_id,
                heartbeat_s=settings.heartbeat_s,
                hello_info=info,
                beat_counters=self._tally.counters,
            )
        return ZmqLink(
            endpoints=settings.endpoints,
            peer_id=peer_id,
            heartbeat_s=settings.heartbeat_s,
            heartbeat_misses=settings.heartbeat_misses,
            hello_info=info,
            beat_counters=self._tally.counters,
        )

    @property
    def addresses(self) -> Mapping[str, str]:
        """Bound URL of each API."""
        return {surface: row.url for row in self._bound for surface in row.surfaces}

    @property
    def link(self) -> ZmqLink | EmbeddedLink:
        """The way to the broker; there once started."""
        assert self._link is not None
        return self._link

    @property
    def open_count(self) -> int:
        """Requests without an answer."""
        return sum(app.open_count for app in self._apps)

    def refuse(self, text: str) -> None:
        """Answer new requests with 503 and ``text`` from now on; they come in as before."""
        for app in self._apps:
            app.refuse(text)
        if self._link is not None:
            self._link.finish()

    async def cut(self, text: str) -> None:
        """Leave the broker, and answer with 503 and ``text`` what is open."""
        if self._is_cut:
            return
        self._is_cut = True
        left = self.open_count
        if left:
            _log.warning("%d open requests are answered: %s", left, text)
        elif self._metrics_log is not None:
            await self._metrics_log.stop()  # asks the broker for the last figures
        if self._link is not None:
            self._link.close(ServerStopping(text))
        for app in self._apps:
            app.refuse_all()
        for server in self._servers:
            server.refuse_unread(ServerStopping(text))
        if self._metrics_log is not None:
            await self._metrics_log.stop()

    async def close(self, text: str) -> None:
        """Accept nothing more, and end all connections once they have their answers."""
        await self.cut(text)
        for server in self._servers:
            server.stop()
        await asyncio.sleep(_LAST_ARRIVALS_S)
        for server in self._servers:
            server.refuse_unread(ServerStopping(text))
        await asyncio.gather(*(server.close_all_connections() for server in self._servers))
        for app in self._apps:
            app.flush_access_log()
        self._remove_traces()

    async def stop(self) -> None:
        """Refuse what is new, let open requests finish in the stop's budget, answer the rest, close everything."""
        budget_s = self._settings.drain_timeout_s
        self.refuse(REFUSAL)
        deadline = monotonic() + budget_s
        while self.open_count and monotonic() < deadline:
            await asyncio.sleep(_STOP_POLL_S)
        await self.close(cut_text(budget_s))

    def _remove_traces(self) -> None:
        with contextlib.suppress(OSError):
            self._addresses_path().unlink()
        for row in self._bound:
            if row.url.startswith("unix:"):
                with contextlib.suppress(OSError):
                    os.unlink(row.url[len("unix:") :])

    def _addresses_path(self) -> Path:
        return Path(self._settings.runtime_dir) / f"http-{self._index}.json"

    def _write_addresses(self) -> None:
        path = self._addresses_path()
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), **self.addresses}, file)
            temporary.replace(path)
        except OSError as exc:
            _log.warning("%s cannot be written: %s", path, exc.strerror)


def _application(
    settings: Settings,
    surfaces: Sequence[str],
    link: BrokerLink,
    predictor: Predictor,
    tally: Tally,
    guard: TokenGuard | None,
    metrics: Metrics,
) -> Application:
    """Return the application of one address.

    On a shared address the inference API is asked first: of its paths only ``GET /models/{m}/ready`` could also be
    read as management's, and probes mean the former.
    """
    oip = settings.open_inference_protocol
    routes: list[Surface] = [ApiDescription(describe_api(surfaces, oip=oip, tokens=guard is not None))]
    if "inference" in surfaces:
        routes.append(Inference(Health(link), link, predictor, oip=oip))
    if "management" in surfaces:
        if guard is not None:
            routes.append(TokenRoute(guard))
        routes.append(Management(settings, link))
    # As TorchServe: an address that inference and management share serves the metrics, too.
    if "metrics" in surfaces or (settings.enable_metrics_api and {"inference", "management"} <= {*surfaces}):
        routes.append(metrics)
    return Application(settings, routes, predictor if "inference" in surfaces else None, tally, guard)


def run(settings: Settings, index: int) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0, or 2 if an address cannot be used.

    Raises:
        ConfigError: If the runtime folder cannot be made, or other users could have made it.
    """
    keep_freed_memory(one_arena=True)
    make_private_folder(Path(settings.runtime_dir))
    try:
        import uvloop
    except ImportError:  # not there on every platform; asyncio's own loop does the same, slower
        new_loop: Any = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(settings, index))


async def _serve(settings: Settings, index: int) -> int:
    loop = asyncio.get_running_loop()
    ending = Ending(settings.drain_timeout_s)
    told = asyncio.Event()

    def on_signal(number: int) -> None:
        tell = ending.drain if number == DRAIN_SIGNAL else ending.leave
        tell(monotonic())
        told.set()

    for number in (DRAIN_SIGNAL, *filter(is_wanted, STOP_SIGNALS)):
        loop.add_signal_handler(number, on_signal, number)
    broker = _open_broker(settings, loop)
    service = HttpService(settings, index, broker)
    try:
        service.start(loop)
        spare_what_is_here(look_rarely=True)
        await told.wait()
        await _end(service, broker, ending)
    except (ConfigError, BrokerUnavailable) as exc:
        print(f"zts http: {exc.public_message}", file=sys.stderr)
        return 2
    finally:
        if broker is not None:
            broker.close()
    return 0


async def _end(service: HttpService, broker: EmbeddedBroker | None, ending: Ending) -> None:
    """Do what ``ending`` says, step by step, up to the end of the process."""
    _log.info("stopping")
    service.refuse(REFUSAL)
    if broker is not None:
        broker.begin_stop(REFUSAL)

    def open_count() -> int:
        return service.open_count + (broker.unfinished if broker is not None else 0)

    while ending.step(monotonic(), open_count()) is Step.DRAIN:
        await asyncio.sleep(_STOP_POLL_S)
    why = ending.why(monotonic())
    if broker is not None:
        broker.end_stop(why)
    await service.cut(why)
    # Workers finish what they hold, and they need the broker for it: it goes on until it is told to leave.
    while ending.step(monotonic(), 0) is Step.HOLD:
        await asyncio.sleep(_STOP_POLL_S)
    until = monotonic() + (LAST_WORDS_S if broker is not None and broker.has_clients else 0.0)
    await service.close(why)
    await asyncio.sleep(until - monotonic())


def _open_broker(settings: Settings, loop: asyncio.AbstractEventLoop) -> EmbeddedBroker | None:
    """Return the broker of this process, or None where it has a process of its own.

    Raises:
        ConfigError: If an address or the runtime folder cannot be used.
        ServerError: If an address is in use.
    """
    if settings.broker != "embedded":
        return None
    from zts.broker.embedded import EmbeddedBroker  # not needed otherwise, and it takes memory

    return EmbeddedBroker.open(settings, loop)
