"""Read an archive from a host by http(s), no slower than its ``Pace`` allows. Layer 3: network.

Each wait for the host is cut into short ones, after which the limits are looked at: in the head as in the body, with
TLS as without. Each redirection has to be allowed, and what is asked for is the address that was allowed.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import IO, Any, Final

from zts.clock import monotonic
from zts.workers.node.pace import Pace

__all__ = ["open_web"]

_LOOK_UP_S: Final = 30.0
_Connect = Callable[..., socket.socket]


def open_web(url: str, pace: Pace, allow: Callable[[str], str]) -> http.client.HTTPResponse:
    """Return the answer of ``url``, whose body may be read.

    Args:
        url: In its one form.
        pace: How slow it may be.
        allow: Returns the one form of an address that a redirection names; raises if that is not allowed.

    Raises:
        OSError: If there is no answer, or one that says no.
        ValueError: If it is too slow.
        http.client.HTTPException: If it is no HTTP.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(pace),
        _AllowedRedirects(allow),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    answer: http.client.HTTPResponse = opener.open(url, timeout=pace.silence_s)
    pace.begin_body()
    return answer


class _AllowedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to allowed addresses only, or a harmless address could lead into the own network."""

    def __init__(self, allow: Callable[[str], str]) -> None:
        self._allow = allow

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            url = self._allow(newurl)
        except BaseException:
            fp.close()  # nobody else will
            raise
        return super().redirect_request(req, fp, code, msg, headers, url)  # type: ignore[arg-type]


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http:// and https:// over connections that keep the pace."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by the opener."""
        return self._ask_host(http.client.HTTPConnection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by the opener."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        context.sslsocket_class = _paced(ssl.SSLSocket, self._pace)
        return self._ask_host(http.client.HTTPSConnection, request, context=context)

    def _ask_host(self, kind: Any, request: urllib.request.Request, **args: Any) -> http.client.HTTPResponse:
        self._pace.begin_head()

        def connection(host: str, **more: Any) -> Any:
            made = kind(host, **more)
            made._create_connection = self._connect  # where http.client itself takes a socket from
            return made

        answer: http.client.HTTPResponse = self.do_open(connection, request, **args)
        return answer

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connect(self, address: tuple[str, int], *_: object) -> socket.socket:
        kind: type[socket.socket] = _paced(socket.socket, self._pace)
        error: OSError = OSError("the name of the host means no address")
        for family, type_, protocol, _name, where in _look_up(*address, self._pace):
            connection = kind(family, type_, protocol)
            try:
                connection.settimeout(self._pace.left_s)
                began = monotonic()
                try:
                    connection.connect(where)
                finally:
                    self._pace.spent(monotonic() - began)
                connection.settimeout(self._pace.left_s)  # for a handshake
            except OSError as exc:
                connection.close()
                error = exc
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise error


def _look_up(host: str, port: int, pace: Pace) -> list[Any]:
    """Return what ``getaddrinfo`` says. The call itself has no limit: one that takes too long is left behind."""
    found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as exc:
            found.put(exc if isinstance(exc, OSError) else OSError(str(exc)))

    threading.Thread(target=look_up, name="store-look-up", daemon=True).start()
    try:
        result = found.get(timeout=min(_LOOK_UP_S, pace.left_s))
    except queue.Empty:
        raise OSError(f"the name of the host was not found within {_LOOK_UP_S:g} s") from None
    if isinstance(result, OSError):
        raise result
    return result


def _paced(base: type[Any], pace: Pace) -> type[Any]:
    """Return a class of sockets that look at the limits while they wait for bytes."""

    class Paced(base):  # type: ignore[misc]
        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            while True:
                self.settimeout(pace.look_s)
                began = monotonic()
                try:
                    received: int = super().recv_into(*args, **kwargs)
                except TimeoutError:
                    pace.waited(monotonic() - began, 0)
                    continue
                pace.waited(monotonic() - began, max(received, 1))  # an end is no silence
                return received

    return Paced
