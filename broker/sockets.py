"""The broker's four sockets: checked, opened, closed. Layer 3.

ZeroMQ takes an ipc path away from whoever listens there without a word, so we look first.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import resource
import socket
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import zmq

from zts.broker.accept_guard import AcceptGuard, backlog, hidden_name
from zts.broker.roles import Access
from zts.config.resolve import check_ipc_path
from zts.errors import ConfigError, ServerError
from zts.keepalive import keep_alive
from zts.settings import Endpoints
from zts.wire.frames import MAX_BODY_BYTES
from zts.wire.messages import Body

__all__ = [
    "CLIENT_HWM",
    "Sockets",
    "check_endpoint",
    "open_sockets",
    "send_frames",
]

# Messages that a client or worker may be behind before it counts as gone; of large ones to clients ``unread`` counts
# the bytes.
CLIENT_HWM: Final = 10_000
# Events that a slow subscriber may be behind before it misses some.
_EVENT_HWM: Final = 10_000
# The same for control peers, whose replies may be long.
_CONTROL_HWM: Final = 1000
# Messages of one connection that we are behind; then it has to wait.
_UNREAD_HWM: Final = 1000
# Of a subscription to events.
_TOPIC_BYTES: Final = 1024
# libzmq calls the option deprecated because it is of Unix sockets only; it has no other way to refuse at accept().
_IPC_FILTER_UID: Final = int(zmq.IPC_FILTER_UID)
# Last answers get so long to leave for a client that is slow, at the end.
_FLUSH_MS: Final = 500

# Plain numbers: an operation on zmq's enumerations costs a microsecond.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)

_log = logging.getLogger("zts.broker")


def send_frames(socket: zmq.Socket[bytes], connection: bytes, frames: Sequence[Body | zmq.Frame]) -> bool:
    """Send over a ROUTER without waiting; large bodies and frames of ZeroMQ's are not copied.

    Returns:
        False when nobody is at ``connection`` any more, or it takes nothing: treat the peer as lost.
    """
    send, first = socket.send, frames[0]
    try:
        send(connection, _MORE)
        if len(frames) == 1:
            send(first, _NOBLOCK, type(first) is not zmq.Frame)
            return True
        send(first, _MORE, type(first) is not zmq.Frame)
        last = len(frames) - 1
        for i in range(1, last):
            send(frames[i], _MORE, False)
        send(frames[last], _NOBLOCK, False)
    except zmq.Again:
        return False
    except zmq.ZMQError as exc:
        if exc.errno != zmq.EHOSTUNREACH:
            raise
        return False
    return True


@dataclass(slots=True)
class Sockets:
    """The open sockets; ``endpoints`` are the addresses they really have (of ``tcp://…:0``, for one)."""

    context: zmq.Context[zmq.Socket[bytes]]
    client: zmq.Socket[bytes]
    worker: zmq.Socket[bytes]
    control: zmq.Socket[bytes]
    event: zmq.Socket[bytes]
    endpoints: Endpoints
    access: Access
    guard: AcceptGuard

    def close(self, *, flush: bool = False) -> None:
        """Close all of them and remove their ipc files; with ``flush``, what clients were told still leaves."""
        self.guard.close()
        for each in (self.client, self.control):
            each.close(linger=_FLUSH_MS if flush else 0)
        for each in (self.worker, self.event):
            each.close(linger=0)
        self.context.term()
        names = (self.endpoints.client, self.endpoints.worker, self.endpoints.control, self.endpoints.event)
        for endpoint in names:
            path = _ipc_path(endpoint)
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def open_sockets(endpoints: Endpoints, model_uids: Collection[int] = ()) -> Sockets:
    """Check all addresses, then bind all four sockets.

    Only processes of this user, and of root, can connect; to the sockets of workers also those of ``model_uids``. Over
    TCP the kernel does not tell whose they are.

    Raises:
        ConfigError: If an address cannot be used by anybody.
        ServerError: If an address is taken or may not be opened.
    """
    names = ("client", "worker", "control", "event")
    for name in names:
        check_endpoint(getattr(endpoints, name), name)
    access = Access(frozenset({0, os.geteuid()}), frozenset(model_uids))
    _check_tcp(endpoints, access)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened = [context.socket(zmq.XPUB if name == "event" else zmq.ROUTER) for name in names]
    guard = AcceptGuard(opened, [path for name in names if (path := _ipc_path(getattr(endpoints, name)))])
    try:
        for name, made in zip(names, opened, strict=True):
            _bind(made, name, getattr(endpoints, name), access.users(name))
    except BaseException:
        guard.close()
        context.destroy(linger=0)
        raise
    actual = Endpoints(**{name: _address(each) for name, each in zip(names, opened, strict=True)})
    client, worker, control, event = opened
    return Sockets(context, client, worker, control, event, actual, access, guard)


def check_endpoint(endpoint: str, name: str) -> None:
    """Check one address of the broker.

    Raises:
        ConfigError: If it is neither ipc nor tcp, too long, or open to other hosts or users.
    """
    if endpoint.startswith("ipc://@"):
        raise ConfigError(
            f"the {name} address {endpoint} is an abstract name, which every user of this host may connect to: "
            "use ipc://PATH in a folder of yours"
        )
    if endpoint.startswith("ipc://") and endpoint != "ipc://":
        check_ipc_path(endpoint)
        return
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not colon or not (port.isdecimal() or port == "*"):
        raise ConfigError(f"the {name} address {endpoint!r} is neither ipc://PATH nor tcp://HOST:PORT")
    if not _is_loopback(host):
        raise ConfigError(
            f"the {name} address {endpoint} is open to other hosts, and there are no keys to check who connects: "
            "use ipc://… or tcp://127.0.0.1:PORT"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_tcp(endpoints: Endpoints, access: Access) -> None:
    """Warn of addresses that every user of this host may connect to; models with users of their own forbid them."""
    names = (endpoints.client, endpoints.worker, endpoints.control, endpoints.event)
    open_ones = [endpoint for endpoint in names if not _ipc_path(endpoint)]
    if open_ones and access.models:
        raise ConfigError(
            f"the address {open_ones[0]} does not tell whose process connects, and models run as users of their own: "
            "use ipc://PATH for all four addresses"
        )
    if open_ones:
        _log.warning(
            "every user of this host may connect to the broker at %s, in any role of these sockets: "
            "use ipc://PATH to keep them out",
            ", ".join(open_ones),
        )


def _bind(made: zmq.Socket[bytes], name: str, endpoint: str, users: frozenset[int]) -> None:
    made.linger = 0
    if name == "event":
        made.set(zmq.SNDHWM, _EVENT_HWM)
        made.set(zmq.MAXMSGSIZE, _TOPIC_BYTES)
    else:
        # What a peer does not read: ROUTER_MANDATORY and NOBLOCK make a full queue an error that we see, and that peer
        # counts as gone. What we have not read yet: the rest waits at the peer that sends too much.
        made.set(zmq.SNDHWM, CLIENT_HWM if name != "control" else _CONTROL_HWM)
        made.set(zmq.RCVHWM, _UNREAD_HWM)
        made.set(zmq.ROUTER_MANDATORY, 1)
        made.set(zmq.MAXMSGSIZE, MAX_BODY_BYTES)
    keep_alive(made, endpoint)
    if endpoint.startswith("tcp://") and "[" in endpoint:
        made.set(zmq.IPV6, 1)
    made.set(zmq.BACKLOG, backlog(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    path = _ipc_path(endpoint)
    if path:
        _free_ipc_path(path, name)
        with contextlib.suppress(OSError):
            os.unlink(hidden_name(path))  # of a broker that was killed while it was full
        for uid in sorted(users):
            made.setsockopt(_IPC_FILTER_UID, uid)  # others are hung up on when they connect
    try:
        made.bind(endpoint)
    except zmq.ZMQError as exc:
        if exc.errno == zmq.EADDRINUSE:
            raise ServerError(f"the {name} address {endpoint} is in use; is another broker running?") from None
        raise ServerError(f"the {name} address {endpoint} cannot be opened: {exc.strerror}") from None
    if path:
        # The umask of whoever starts us may leave it open to others. Users of models are let through by the node agent.
        os.chmod(path, 0o600)


def _free_ipc_path(path: str, name: str) -> None:
    """Remove a socket file that nobody listens at.

    Raises:
        ServerError: If somebody does, or the file is no socket.
    """
    try:
        mode = os.lstat(path).st_mode  # a link in its place is not ours
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ServerError(f"the {name} address ipc://{path} cannot be opened: {exc.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ServerError(f"the {name} address ipc://{path} is a file, not a socket; it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (TimeoutError, BlockingIOError):
            pass  # somebody listens, and does not accept
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise ServerError(f"the {name} address ipc://{path} is in use; is another broker running?")


def _address(opened: zmq.Socket[bytes]) -> str:
    last = opened.get(zmq.LAST_ENDPOINT)
    return bytes(last).rstrip(b"\0").decode()


def _ipc_path(endpoint: str) -> str:
    """Return the file of an ipc address; "" for tcp."""
    path = endpoint.removeprefix("ipc://")
    return "" if path == endpoint else path
