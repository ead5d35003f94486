"""Fetch an archive from http(s):// or file:// into the model store (TORCHSERVE.md 2.2). Layer 3: network, disk.

Runs in the store's threads. A file appears under its name only when it is whole, and never in the place of another.
``source_rules.py`` decides what is allowed; what is read is what was allowed.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import shutil
import ssl
import stat
import tempfile
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from zts.clock import monotonic
from zts.errors import DownloadFailed, ModelNotFound, ServerError
from zts.regular_file import pinned
from zts.settings import DEFAULT_DOWNLOAD_RATE, REGISTRATION_LIMIT_S
from zts.visible import visible
from zts.workers.node.pace import Pace
from zts.workers.node.source_rules import Address, file_address, file_name, is_allowed, parse_address
from zts.workers.node.web_source import open_web

__all__ = ["MAX_ARCHIVE_BYTES", "check_allowed", "download"]

MAX_ARCHIVE_BYTES: Final = 64 * 1024**3
_SILENCE_S: Final = 60.0
_CHUNK_BYTES: Final = 1024 * 1024
# What others may do with a copy at most.
_FILE_MODE: Final = 0o644
_ACCESS_LIST: Final = "system.posix_acl_access"


def check_allowed(url: str, patterns: Sequence[str], *, by_operator: bool = False) -> Address:
    """Return the one form of ``url`` if a pattern matches it as a whole, whatever the case.

    A file is matched by the path at which it really lies.

    Raises:
        ModelNotFound: If none does (TorchServe's words), or it has more than one reading.
    """
    address = parse_address(url, by_operator=by_operator)
    real = file_address(os.path.realpath(address.path)) if address.scheme == "file" else address
    if not is_allowed(real, patterns, resolve=os.path.realpath):
        raise _not_allowed(url)
    return address


def download(
    url: str,
    store: Path,
    patterns: Sequence[str],
    *,
    by_operator: bool = False,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    least_rate: int = DEFAULT_DOWNLOAD_RATE,
    whole_s: float = REGISTRATION_LIMIT_S,
) -> Path:
    """Copy the file behind ``url`` into ``store`` under its base name and return its path.

    Args:
        url: http, https or file.
        store: The model store.
        patterns: ``allowed_urls``; redirections have to match them, too.
        by_operator: ``..`` in the address is no fault.
        max_bytes: Largest file.
        least_rate: Fewest bytes per second of a host, over a minute; 0: any.
        whole_s: Most seconds in all. A minute without a byte is too long in any case.

    Raises:
        ModelNotFound: If the url or a redirection is not allowed.
        ServerError: If the store has a file of that name.
        DownloadFailed: If it cannot be fetched.
    """
    address = check_allowed(url, patterns, by_operator=by_operator)
    target = store / file_name(url)
    if os.path.lexists(target):
        raise _exists(target)
    pace = Pace(silence_s=_SILENCE_S, least_rate=least_rate, whole_s=whole_s)
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(prefix=".downloading-", dir=store)
        with os.fdopen(handle, "wb") as file, _open(address, patterns, pace) as source:
            _copy(source, file, max_bytes, monotonic() + whole_s)
            os.fchmod(file.fileno(), source.mode_of_copy(os.fstat(file.fileno())))
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


def _not_allowed(url: str) -> ModelNotFound:
    return ModelNotFound(f"Given URL {url} does not match any allowed URL(s)")


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


class _Source(NamedTuple):
    """What is copied.

    Attributes:
        read: Returns what is there of at most so many bytes, ``b""`` at the end.
        length: How many bytes come; None: not known before the end.
        expected: How many probably come.
        mode_of_copy: Returns the mode of a copy by its ``stat``.
    """

    read: Callable[[int], bytes]
    length: int | None
    expected: int
    mode_of_copy: Callable[[os.stat_result], int]


@contextlib.contextmanager
def _open(address: Address, patterns: Sequence[str], pace: Pace) -> Iterator[_Source]:
    """Open what is allowed."""
    if address.scheme == "file":
        with pinned(address.path) as found:
            # Looked at again: this is what is read, whatever the name meant before.
            if not is_allowed(file_address(found.real_path), patterns, resolve=os.path.realpath):
                raise _not_allowed(address.text)
            if stat.S_ISDIR(found.info.st_mode):
                raise ValueError("it is a folder; copy it into the model store and register it by its name")
            with found.open() as file:
                mode = functools.partial(_mode_of_copy, file, found.info)
                yield _Source(file.read1, None, found.info.st_size, mode)
        return

    def allow(redirection: str) -> str:
        to = check_allowed(redirection, patterns)
        if to.scheme == "file":
            raise _not_allowed(redirection)
        return to.text

    with open_web(address.text, pace, allow) as answer:
        yield _Source(answer.read1, answer.length, answer.length or 0, lambda copy: _FILE_MODE)


def _mode_of_copy(file: IO[bytes], source: os.stat_result, copy: os.stat_result) -> int:
    """Return the mode with which nobody may read a copy who may not read the source; its owner is this process's."""
    granted = stat.S_IMODE(source.st_mode) & _FILE_MODE & 0o077
    with contextlib.suppress(OSError):
        os.getxattr(file.fileno(), _ACCESS_LIST)
        granted = 0  # its group bits mean something else, and the list is not copied
    if source.st_gid != copy.st_gid and granted != 0o044:
        granted = 0  # the copy's group is another one
    return 0o600 | granted


def _copy(source: _Source, target: IO[bytes], max_bytes: int, deadline: float) -> None:
    length = source.length
    if length is not None and length > max_bytes:
        raise ValueError(f"it has {length} bytes, at most {max_bytes} are fetched")
    if source.expected > shutil.disk_usage(target.fileno()).free:
        raise ValueError(f"it has {source.expected} bytes, and the model store has not so much room")
    copied = 0
    while copied != length and (chunk := source.read(_CHUNK_BYTES)):
        copied += len(chunk)
        if copied > max_bytes:
            raise ValueError(f"it has more than {max_bytes} bytes")
        if monotonic() > deadline:
            raise ValueError("it took too long")
        target.write(chunk)
    if length is not None and copied < length:
        raise ValueError(f"the connection ended after {copied} of {length} bytes")
