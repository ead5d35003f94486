"""Fetch an archive from http(s):// or file:// into the model store (TORCHSERVE.md 2.2). Layer 3: network, disk.

Runs in the store's threads. A file appears under its name only when it is whole, and never in the place of another.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from zts.clock import monotonic
from zts.errors import DownloadFailed, ModelNotFound, ServerError
from zts.settings import REGISTRATION_LIMIT_S
from zts.visible import visible

__all__ = ["MAX_ARCHIVE_BYTES", "check_allowed", "download", "file_name", "is_url"]

MAX_ARCHIVE_BYTES: Final = 64 * 1024**3
_SILENCE_S: Final = 60.0
_CHUNK_BYTES: Final = 1024 * 1024
_URL: Final = re.compile(r"(https?|file)://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Return whether ``text`` is an address of a kind that can be fetched; TorchServe takes all else for names."""
    return _URL.match(text) is not None


def check_allowed(url: str, patterns: Sequence[str]) -> None:
    """See that a pattern matches the whole ``url``, whatever the case.

    Raises:
        ModelNotFound: If none does (TorchServe's words).
    """
    if not any(re.fullmatch(pattern, url, re.IGNORECASE) for pattern in patterns):
        raise ModelNotFound(f"Given URL {url} does not match any allowed URL(s)")


def file_name(url: str) -> str:
    """Return the name that the file of ``url`` gets in the model store.

    Raises:
        DownloadFailed: If the url names no file.

    >>> file_name("https://host/a/kitchen%20sink.mar?signature=x")
    'kitchen sink.mar'
    """
    name = os.path.basename(unquote(urlsplit(url).path).rstrip("/"))
    if name in ("", ".", "..") or "\0" in name:
        raise DownloadFailed(f"Failed to download archive from: {url}. Cause: it names no file")
    return name


def download(
    url: str,
    store: Path,
    patterns: Sequence[str],
    *,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    whole_s: float = REGISTRATION_LIMIT_S,
) -> Path:
    """Copy the file behind ``url`` into ``store`` under its base name and return its path.

    Args:
        url: http, https or file.
        store: The model store.
        patterns: ``allowed_urls``; redirections have to match them, too.
        max_bytes: Largest file.
        whole_s: Most seconds in all. Slow is no fault; a minute without a byte is too long in any case.

    Raises:
        ModelNotFound: If the url or a redirection is not allowed.
        ServerError: If the store has a file of that name.
        DownloadFailed: If it cannot be fetched.
    """
    check_allowed(url, patterns)
    target = store / file_name(url)
    if target.exists():
        raise _exists(target)
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(prefix=".downloading-", dir=store)
        with os.fdopen(handle, "wb") as file, _open(url, patterns) as source:
            _copy(source, file, max_bytes, monotonic() + whole_s)
            os.fchmod(file.fileno(), 0o644)
        os.link(partial, target)  # unlike a rename it never replaces what somebody else put there meanwhile
    except FileExistsError:
        raise _exists(target) from None
    except (OSError, ValueError, http.client.HTTPException) as exc:
        if isinstance(exc, urllib.error.HTTPError):
            exc.close()  # it holds the connection
        raise DownloadFailed(f"Failed to download archive from: {url}. Cause: {_cause(exc)}") from None
    finally:
        if partial:
            with contextlib.suppress(OSError):
                os.unlink(partial)
    return target


def _exists(target: Path) -> ServerError:
    return ServerError(f"Model file already exists {target.name}")


def _cause(exc: Exception) -> str:
    """Return one line that says why it could not be fetched."""
    if isinstance(exc, urllib.error.HTTPError):
        if "infinite loop" in str(exc.reason):  # urllib's words for it fill three lines
            return f"{exc.code}: it is redirected in a circle"
        return visible(f"{exc.code} {exc.reason}")
    reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(reason, TimeoutError):
        return f"nothing came for {_SILENCE_S:g} s"
    if isinstance(reason, http.client.BadStatusLine) and not isinstance(reason, http.client.RemoteDisconnected):
        return "what answers there is no HTTP server"  # and what it says is not for callers to read
    if isinstance(reason, ssl.SSLError) and reason.reason == "WRONG_VERSION_NUMBER":
        return "TLS is not spoken there; is it an http:// address?"
    text = str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
    return visible(" ".join(re.sub(r"\(_ssl\.c:\d+\)", "", text).split()))


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to allowed addresses only, or a harmless address could lead into the own network."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_allowed(newurl, self._patterns)
        except ModelNotFound:
            fp.close()  # nobody else will
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _open(url: str, patterns: Sequence[str]) -> IO[bytes]:
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError("a file:// address has the form file:///path")
        path = Path(unquote(parts.path))
        if path.is_dir():
            raise ValueError("it is a folder; copy it into the model store and register it by its name")
        return path.open("rb")
    opener = urllib.request.build_opener(_CheckedRedirects(patterns))
    source: IO[bytes] = opener.open(url, timeout=_SILENCE_S)
    return source


def _copy(source: IO[bytes], target: IO[bytes], max_bytes: int, deadline: float) -> None:
    length = getattr(source, "length", None)
    if isinstance(length, int) and length > max_bytes:
        raise ValueError(f"it has {length} bytes, at most {max_bytes} are fetched")
    if isinstance(length, int) and length > shutil.disk_usage(target.fileno()).free:
        raise ValueError(f"it has {length} bytes, and the model store has not so much room")
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > max_bytes:
            raise ValueError(f"it has more than {max_bytes} bytes")
        if monotonic() > deadline:
            raise ValueError("it took too long")
        target.write(chunk)
    if isinstance(length, int) and copied < length:
        raise ValueError(f"the connection ended after {copied} of {length} bytes")
