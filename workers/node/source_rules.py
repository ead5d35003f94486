"""What the address of an archive means, and whether a rule allows it. Layer 1: no disk, no network.

An address is decoded once and brought into one form: scheme and host in small letters, no default port, no dot
segments, no fragment. That form is matched against ``allowed_urls``, and that form is what is opened. Of a file the
form is the path at which the opened file really lies.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from zts.errors import DownloadFailed, ModelNotFound
from zts.visible import UNSAFE

__all__ = [
    "Address",
    "check_store_name",
    "file_address",
    "file_name",
    "is_allowed",
    "is_url",
    "parse_address",
]

_URL: Final = re.compile(r"(https?|file)://", re.IGNORECASE)
_FORM: Final = re.compile(r"(https?|file)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@]*)(?::([0-9]{0,5}))?")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# The last label of what a resolver may read as an IPv4 address: 0x7f.1, 2130706433, 127.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PERCENT: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Written as they are: all of ASCII that a request line can hold.
_AS_THEY_ARE: Final = "".join(map(chr, range(0x21, 0x7F)))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FILE_RULE: Final = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_LONGEST_NAME_BYTES: Final = 255
_DECODINGS: Final = 4  # of a path, by hosts that decode what was decoded


@dataclass(frozen=True, slots=True)
class Address:
    """An address in its one form.

    Attributes:
        scheme: ``http``, ``https`` or ``file``.
        host: Name or address, IPv6 in brackets; ``""`` for files.
        port: 0: the scheme's own.
        path: Of a file: as the file system has it. Else percent-encoded.
        query: With its question mark, or ``""``.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def text(self) -> str:
        """What is opened."""
        port = f":{self.port}" if self.port else ""
        path = _encoded(self.path) if self.scheme == "file" else self.path
        return f"{self.scheme}://{self.host}{port}{path}{self.query}"

    def spellings(self) -> Iterator[str]:
        """Yield the forms in which a rule may have written this very address."""
        if self.scheme == "file":
            # A percent sign of a name is always encoded, or it could be taken for an encoded character.
            paths = {_encoded(self.path), self.path.replace("%", "%25")}
            yield from (f"file://{host}{path}" for host in ("", "localhost") for path in sorted(paths))
            return
        hosts = [self.host]
        if "xn--" in self.host:
            hosts.append(_unicode_host(self.host))
        if not self.host.startswith("[") and not _NUMBER.fullmatch(self.host.rpartition(".")[2]):
            hosts += [f"{host}." for host in hosts]
        ports = [f":{self.port}"] if self.port else ["", f":{_DEFAULT_PORTS[self.scheme]}"]
        yield from (f"{self.scheme}://{host}{port}{self.path}{self.query}" for host in hosts for port in ports)


def is_url(text: str) -> bool:
    """Return whether ``text`` is an address of a kind that can be fetched; TorchServe takes all else for names."""
    return _URL.match(text) is not None


def parse_address(url: str, *, by_operator: bool = False) -> Address:
    """Return the one form of ``url``. ``by_operator``: ``..`` is no fault in it; of files, it is resolved later.

    Raises:
        ModelNotFound: If it has more than one reading: control characters, backslashes, a user name, an odd form of
            an IP address, or a path that leaves its folder.

    >>> parse_address("HTTP://Good.Example.:80/a/./%7eb%2fc.mar?x=1#y").text
    'http://good.example/a/~b%2Fc.mar?x=1'
    """
    if UNSAFE.search(url) or "\\" in url:
        raise _refused(url, "it has a control character or a backslash")
    found = _FORM.fullmatch(url)
    if found is None:
        raise _refused(url, "it is no http(s):// or file:// address")
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4]
    _check_path(url, path, is_file=scheme == "file", by_operator=by_operator)
    if scheme == "file":
        if authority.lower() not in ("", "localhost"):
            raise _refused(url, "a file:// address has the form file:///path")
        return file_address("/" + unquote(path).lstrip("/"))
    host, port = _host_and_port(url, authority)
    port = 0 if port == _DEFAULT_PORTS[scheme] else port
    return Address(scheme, host, port, _normal_path(path), "" if query is None else "?" + quote(query, _AS_THEY_ARE))


def file_address(path: str) -> Address:
    """Return the address of a file by its path."""
    return Address("file", "", 0, path)


def is_allowed(
    address: Address, patterns: Sequence[str], *, resolve: Callable[[str], str] = lambda folder: folder
) -> bool:
    """Return whether a pattern matches the whole address, whatever the case.

    Of a file, ``address`` is where it really lies. A folder that a pattern names in so many words may be a link:
    ``resolve`` says where that lies.

    >>> is_allowed(parse_address("http://good:80/m.mar"), ["http://good/.*"])
    True
    >>> is_allowed(file_address("/disk1/models/m.mar"), ["file:///models/.*"], resolve={"/models": "/disk1/models"}.get)
    True
    """
    return any(
        re.fullmatch(pattern, spelling, re.IGNORECASE)
        for pattern in patterns
        for named in (address, *_by_links_of(pattern, address, resolve))
        for spelling in named.spellings()
    )


def file_name(url: str) -> str:
    """Return the name that the file of ``url`` gets in the model store.

    Raises:
        ModelNotFound: If the address has more than one reading.
        DownloadFailed: If it names no file.

    >>> file_name("https://host/a/kitchen%20sink.mar?signature=x")
    'kitchen sink.mar'
    """
    address = parse_address(url, by_operator=True)
    path = address.path if address.scheme == "file" else unquote(address.path)
    name = path.rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or UNSAFE.search(name) or "\\" in name:
        raise DownloadFailed(f"Failed to download archive from: {url}. Cause: it names no file")
    if len(name.encode("utf-8", "replace")) > _LONGEST_NAME_BYTES:
        raise DownloadFailed(f"Failed to download archive from: {url}. Cause: its file name is too long")
    return name


def check_store_name(name: str) -> None:
    """Check that what a registration names in the model store has one reading.

    Raises:
        ModelNotFound: If it has a control character or a backslash.
    """
    if UNSAFE.search(name) or "\\" in name:
        raise ModelNotFound(f"Model not found at: {name}: it has a control character or a backslash")


# ------------------------------------------------------------ parts of an address


def _refused(url: str, why: str) -> ModelNotFound:
    # TorchServe's words come first.
    return ModelNotFound(f"Given URL {url} does not match any allowed URL(s): {why}")


def _check_path(url: str, path: str, *, is_file: bool, by_operator: bool) -> None:
    try:
        decoded = unquote_to_bytes(path).decode("utf-8", "strict" if is_file else "replace")
    except UnicodeDecodeError:
        raise _refused(url, "its path is no UTF-8") from None
    if UNSAFE.search(decoded) or "\\" in decoded:
        raise _refused(url, "it has an encoded control character or backslash")
    if by_operator:
        return
    for _ in range(1 if is_file else _DECODINGS):
        # Some servers read "..;x" as "..".
        if any(part.partition(";")[0].strip() == ".." for part in decoded.split("/")):
            raise ModelNotFound(f"Relative path is not allowed in url: {url}")
        decoded = unquote(decoded).replace("\\", "/")


def _host_and_port(url: str, authority: str) -> tuple[str, int]:
    if "@" in authority:
        raise _refused(url, "it has a user name; zts sends none")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _refused(url, "its host is malformed")
    port = int(found[2]) if found[2] else 0
    if port > 65535 or (found[2] and port == 0):
        raise _refused(url, "its port is not between 1 and 65535")
    host = _host(found[1])
    if not host:
        raise _refused(url, "its host is malformed")
    return host, port


def _host(text: str) -> str:
    """Return the one form of a host, ``""`` if it has none."""
    try:
        if text.startswith("["):
            address = ipaddress.IPv6Address(text[1:-1])
            return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address.compressed}]"
        host = text.lower() if text.isascii() else text.encode("idna").decode("ascii").lower()
        host = host.removesuffix(".")
        if len(host) > 253 or not _HOST.fullmatch(host):
            return ""
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host))
    except ValueError:  # UnicodeError is one
        return ""
    return host


def _unicode_host(host: str) -> str:
    try:
        return host.encode("ascii").decode("idna")
    except UnicodeError:
        return host


def _normal_path(path: str) -> str:
    def normal(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%25"
        code = int(found[1], 16)
        return chr(code) if code in _UNRESERVED else f"%{code:02X}"

    encoded = _PERCENT.sub(normal, quote(path, _AS_THEY_ARE))
    parts = encoded.split("/")
    kept = [part for part in parts[:-1] if part != "."] + (["" if parts[-1] == "." else parts[-1]])
    return "/" + "/".join(kept[1:] if kept[0] == "" else kept)


def _encoded(path: str) -> str:
    return quote(path, "/!$&'()*+,;=:@", errors="surrogateescape")


# ------------------------------------------------------------ links in rules


def _by_links_of(pattern: str, address: Address, resolve: Callable[[str], str]) -> Iterator[Address]:
    """Yield the names of a file in which folders that the pattern spells out, and only they, may be links."""
    if address.scheme != "file":
        return
    for named in _spelt_out(pattern):
        real = resolve(named)
        if real == named or not real:
            continue
        if address.path == real:
            yield file_address(named)
        elif address.path.startswith(real.rstrip("/") + "/"):
            yield file_address(named + address.path[len(real.rstrip("/")) :])


def _spelt_out(pattern: str) -> Iterator[str]:
    """Yield the folders, or the file, with whose literal name the file:// addresses in a pattern begin.

    >>> list(_spelt_out(r"file:///srv/my\\.models/v.*|file:///data/m\\.mar"))
    ['/srv/my.models', '/data/m.mar']
    """
    pattern = pattern.replace(r"\/", "/")
    for found in _FILE_RULE.finditer(pattern):
        literal, at = "", found.end()
        while at < len(pattern):
            char = pattern[at]
            step = 1
            if char == "\\" and at + 1 < len(pattern) and not pattern[at + 1].isalnum():
                char, step = pattern[at + 1], 2
            elif char in "\\.^$*+?{}[]()|":
                break
            if pattern[at + step : at + step + 1] in ("*", "?", "{", "+"):
                break
            literal, at = literal + char, at + step
        is_whole = not pattern[at:].strip(")") or pattern[at] == "|"
        named = unquote(literal if is_whole else literal.rpartition("/")[0])
        if named.rstrip("/"):
            yield named.rstrip("/")
