"""Find out when a starting instance is there: the broker answers, a node is connected, HTTP accepts; and when, at its
end, no request is open any more. Layer 3.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from zts.errors import ZtsError
from zts.settings import Settings
from zts.supervisor.startup_models import ControlFor

__all__ = ["accepts_connections", "watch_drain", "watch_readiness"]

_log = logging.getLogger(__name__)

# Somebody waits for the first answer: look often, each look costs some 100 µs.
_PAUSE_S: Final = 0.01
_STATUS_TIMEOUT_S: Final = 2.0
_CONNECT_TIMEOUT_S: Final = 1.0


def watch_readiness(
    settings: Settings,
    control_for: ControlFor,
    *,
    fleet_ready: Callable[[], None],
    http_ready: Callable[[], None],
    failed: Callable[[str], None],
    ended: threading.Event,
) -> None:
    """Call ``fleet_ready`` and ``http_ready`` once each, from a thread of its own, as soon as they are so.

    Setting ``ended`` stops the watch. ``failed`` is called with a reason if the watch itself breaks.
    """

    def work() -> None:
        try:
            _watch(settings, control_for, fleet_ready, http_ready, ended)
        except Exception as exc:
            _log.exception("cannot tell whether the instance is ready")
            failed(f"cannot tell whether the instance is ready: {exc}")

    threading.Thread(target=work, name="readiness", daemon=True).start()


def _watch(
    settings: Settings,
    control_for: ControlFor,
    fleet_ready: Callable[[], None],
    http_ready: Callable[[], None],
    ended: threading.Event,
) -> None:
    endpoint = settings.endpoints.control
    path = endpoint.removeprefix("ipc://")
    while endpoint.startswith("ipc://") and not os.path.exists(path):
        if ended.wait(_PAUSE_S):
            return
    control = control_for(endpoint)
    try:
        fleet_told = False
        while not ended.wait(_PAUSE_S):
            try:
                status, body = control.request("status", {}, timeout_s=_STATUS_TIMEOUT_S)
            except ZtsError as exc:
                _log.debug("the broker does not answer yet: %s", exc.public_message)
                continue
            if status >= 400:
                continue
            if body.get("nodes") and not fleet_told:
                fleet_told = True
                fleet_ready()
            # The broker's list comes first: a stranger's server on our port accepts connections too.
            if fleet_told and _http_accepts(body.get("https", ()), settings.http_processes):
                http_ready()
                return
    finally:
        control.close()


def watch_drain(
    settings: Settings, control_for: ControlFor, *, drained: Callable[[], None], ended: threading.Event
) -> None:
    """Call ``drained`` once, from a thread of its own, when no request is open at the broker or at an HTTP server.

    An HTTP server that drains leaves the broker when it has answered everything. Setting ``ended`` stops the watch. A
    broker that is gone is not told about: the caller sees its process end.
    """

    def work() -> None:
        control = control_for(settings.endpoints.control)
        try:
            while not ended.wait(_PAUSE_S):
                try:
                    status, body = control.request("status", {}, timeout_s=_STATUS_TIMEOUT_S)
                except ZtsError as exc:
                    _log.debug("the broker does not answer: %s", exc.public_message)
                    continue
                broker = body.get("broker", {})
                is_idle = broker.get("stopping") and not broker.get("unfinished_jobs") and not body.get("https")
                if status < 400 and is_idle:
                    drained()
                    return
        finally:
            control.close()

    threading.Thread(target=work, name="drain", daemon=True).start()


def _http_accepts(servers: Sequence[Mapping[str, Any]], wanted: int) -> bool:
    """Tell whether all HTTP servers are known to the broker, and somebody listens where they say they do.

    Their own word counts, not the settings: port 0 becomes a real one, and an API may be switched off.
    """
    if len(servers) < wanted:
        return False
    addresses = {address for server in servers for address in server.get("addresses", ())}
    return all(accepts_connections(address) for address in addresses)


def accepts_connections(address: str) -> bool:
    """Tell whether somebody listens at ``http://host:port``, ``https://…`` or ``unix:/path``."""
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as out:
                out.settimeout(_CONNECT_TIMEOUT_S)
                path = address.removeprefix("unix:")
                out.connect(path[2:] if path.startswith("//") else path)
            return True
        parts = urlsplit(address)
        host = parts.hostname or "127.0.0.1"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # Who listens everywhere is asked here.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False
