"""The HTTP server process: bind, connect to the broker, serve until SIGTERM, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from zts.clock import monotonic
from zts.errors import BrokerUnavailable, ConfigError
from zts.http.addresses import BoundAddress, bind_all
from zts.http.api_description import ApiDescription, describe_api
from zts.http.app import Application, Surface, Tally
from zts.http.health import Health
from zts.http.inference import Inference, Predictor
from zts.http.link import BrokerLink
from zts.http.management import Management
from zts.http.metrics import Metrics
from zts.http.metrics_log import MetricsLog
from zts.http.servers import Server, make_server
from zts.http.token_route import TokenRoute
from zts.http.tokens import TokenGuard
from zts.http.zmq_link import ZmqLink
from zts.metrics.definition_file import load_definitions
from zts.settings import Settings

__all__ = ["HttpService", "run"]

_log = logging.getLogger("zts.http")

_GC_THRESHOLD: Final = 20_000
_STOP_POLL_S: Final = 0.02


class HttpService:
    """The servers of one process, on a running loop.

    Args:
        settings: Addresses and limits.
        index: Number of this process among ``http_processes``.
    """

    def __init__(self, settings: Settings, index: int) -> None:
        self._settings = settings
        self._index = index
        self._tally = Tally()
        self._servers: list[Server] = []
        self._apps: list[Application] = []
        self._bound: list[BoundAddress] = []
        self._link: ZmqLink | None = None
        self._metrics_log: MetricsLog | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind, connect and serve.

        Raises:
            ConfigError: If an address cannot be bound, or keys or certificates cannot be used.
            BrokerUnavailable: If a broker endpoint is no address.
        """
        guard = TokenGuard.of_instance(self._settings, self._index)
        definitions = load_definitions(self._settings.metrics_config)  # before anything is bound: it may be wrong
        self._bound = bind_all(self._settings, self._index)
        info = {"pid": os.getpid(), "addresses": [row.url for row in self._bound]}
        self._link = ZmqLink(
            endpoints=self._settings.endpoints,
            peer_id=f"http-{self._index}-{uuid4().hex[:12]}",
            heartbeat_s=self._settings.heartbeat_s,
            heartbeat_misses=self._settings.heartbeat_misses,
            hello_info=info,
            beat_counters=self._tally.counters,
        )
        self._link.start(loop)
        predictor = Predictor(self._link, self._tally)
        for row in self._bound:
            metrics = Metrics(self._settings.metrics_mode, definitions, self._link, self._tally.counters)
            app = _application(self._settings, row.surfaces, self._link, predictor, self._tally, guard, metrics)
            server = make_server(self._settings, row, app, loop)
            server.add_sockets(row.sockets)
            self._apps.append(app)
            self._servers.append(server)
            _log.info("%s API on %s", " and ".join(row.surfaces), row.url)
        if self._index == 0 and self._settings.metrics_mode != "prometheus":
            self._metrics_log = MetricsLog(self._settings.metrics_mode, definitions, self._link)
            self._metrics_log.start(loop)
        self._write_addresses()

    @property
    def addresses(self) -> Mapping[str, str]:
        """Bound URL of each API."""
        return {surface: row.url for row in self._bound for surface in row.surfaces}

    @property
    def link(self) -> ZmqLink:
        """The way to the broker; there once started."""
        assert self._link is not None
        return self._link

    async def stop(self) -> None:
        """Accept nothing more, let open requests finish within ``drain_timeout_s``, close everything."""
        for server in self._servers:
            server.stop()
        for app in self._apps:
            app.is_draining = True
        deadline = monotonic() + self._settings.drain_timeout_s
        while (left := sum(app.open_count for app in self._apps)) and monotonic() < deadline:
            await asyncio.sleep(_STOP_POLL_S)
        if left:
            _log.warning("%d requests were still open after %g s", left, self._settings.drain_timeout_s)
        for server in self._servers:
            await server.close_all_connections()
        for app in self._apps:
            app.flush_access_log()
        if self._metrics_log is not None:
            await self._metrics_log.stop()
        if self._link is not None:
            self._link.close()
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
            temporary.write_text(json.dumps({"pid": os.getpid(), **self.addresses}), encoding="utf-8")
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
    """Serve until SIGTERM or SIGINT; return the exit code: 0, or 2 if an address cannot be used."""
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
    service = HttpService(settings, index)
    try:
        service.start(loop)
    except (ConfigError, BrokerUnavailable) as exc:
        print(f"zts http: {exc.public_message}", file=sys.stderr)
        return 2
    # What is here by now stays, and requests make hardly any cycles: look for them less often, and not in all that.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    _log.info("stopping")
    await service.stop()
    return 0
