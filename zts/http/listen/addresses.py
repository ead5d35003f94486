"""Where the REST APIs listen: read the three addresses, bind each once. Layer 3."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tornado.netutil import bind_sockets, bind_unix_socket

from zts.errors import ConfigError
from zts.settings import Settings

__all__ = ["BoundAddress", "bind_all", "parse_address"]

_UNIX: Final = "unix:"
_MAX_UNIX_BYTES: Final = 107
# Whether a program listens at a Unix socket; one whose queue is full lets callers wait.
_PROBE_S: Final = 1.0
_BACKLOG: Final = 1024
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class BoundAddress:
    """One listening address.

    Attributes:
        url: As clients use it, with the real port.
        sockets: Listening.
        surfaces: Names of the APIs that are served there.
        is_tls: The address says ``https``.
    """

    url: str
    sockets: list[socket.socket]
    surfaces: tuple[str, ...]
    is_tls: bool = False


def parse_address(address: str, setting: str) -> tuple[str, str | int]:
    """Return (host, port), or ("unix", path).

    Args:
        address: ``http://host:port``, ``https://host:port`` or ``unix:/path``.
        setting: Its name, for the error.

    Raises:
        ConfigError: If it is neither.
    """
    if address.startswith(_UNIX):
        path = address[len(_UNIX) :]
        path = path[2:] if path.startswith("//") else path
        if not path.startswith("/") or len(os.fsencode(path)) > _MAX_UNIX_BYTES:
            raise ConfigError(f"{setting} = {address}: a Unix socket needs an absolute path of at most 107 bytes")
        return "unix", path
    url = urlsplit(address)
    try:
        port = url.port
    except ValueError:
        port = -1
    if url.scheme not in _PORTS or not url.hostname or port == -1 or url.path not in ("", "/"):
        raise ConfigError(f"{setting} = {address}: expected http://host:port, https://host:port or unix:/path")
    return url.hostname, _PORTS[url.scheme] if port is None else port


def bind_all(settings: Settings, index: int) -> list[BoundAddress]:
    """Bind the inference, management and metrics addresses; equal ones share one socket.

    With several HTTP processes the ports are shared through ``SO_REUSEPORT``; a Unix socket cannot be, so only the
    first process serves it.

    Raises:
        ConfigError: If an address is malformed, in use or not this host's; the message names address and setting.
    """
    wanted: dict[str, list[str]] = {}
    for surface in ("inference", "management", "metrics"):
        if surface == "metrics" and not settings.enable_metrics_api:
            continue
        address = getattr(settings, f"{surface}_address").rstrip("/")
        # Port 0 is any free port, so equal texts are different addresses there.
        key = f"{address}#{surface}" if address.endswith(":0") else address
        wanted.setdefault(key, []).append(surface)
    bound: list[BoundAddress] = []
    try:
        for key, surfaces in wanted.items():
            address = key.partition("#")[0]
            setting = f"{surfaces[0]}_address"
            host, where = parse_address(address, setting)
            if host == "unix" and index > 0:
                continue
            bound.append(_bind(host, where, address, setting, surfaces, settings.http_processes > 1))
    except ConfigError:
        for row in bound:
            for sock in row.sockets:
                sock.close()
        raise
    return bound


def _bind(
    host: str, where: str | int, address: str, setting: str, surfaces: list[str], reuse_port: bool
) -> BoundAddress:
    try:
        if isinstance(where, str):
            if _is_served(where):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return BoundAddress(address, [bind_unix_socket(where, backlog=_BACKLOG)], tuple(surfaces))
        sockets = bind_sockets(where, host, backlog=_BACKLOG, reuse_port=reuse_port)
    except socket.gaierror as exc:
        raise ConfigError(f"{setting} = {address}: unknown host {host!r} ({exc.strerror})") from None
    except (OSError, ValueError, OverflowError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        hint = ""
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            hint = f"; another process listens there: stop it or set {setting} to another address"
        raise ConfigError(f"cannot listen on {address} ({setting}): {why.lower()}{hint}") from None
    if not sockets:
        raise ConfigError(f"cannot listen on {address} ({setting}): the host has no usable address")
    port = sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    scheme = urlsplit(address).scheme
    return BoundAddress(f"{scheme}://{shown}:{port}", sockets, tuple(surfaces), scheme == "https")


def _is_served(path: str) -> bool:
    """Return whether somebody listens on a Unix socket; a left-over file is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except (TimeoutError, BlockingIOError):
            return True  # somebody listens, and does not accept
        except OSError:
            return False
        return True
