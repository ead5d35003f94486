"""Addresses: one form, which is matched and opened; whatever passes lies where the rule said."""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zts.archive.entries import why_outside
from zts.errors import DownloadFailed, ModelNotFound, ZtsError
from zts.visible import UNSAFE
from zts.workers.node.source_rules import check_store_name, file_address, file_name, is_allowed, parse_address

FORMS = [
    ("HTTP://Good.Example/m.mar", "http://good.example/m.mar"),
    ("http://good.example.:80/m.mar", "http://good.example/m.mar"),
    ("https://good.example:443/m.mar", "https://good.example/m.mar"),
    ("https://good.example:0443/m.mar", "https://good.example/m.mar"),
    ("https://good.example:80/m.mar", "https://good.example:80/m.mar"),
    ("http://good.example:/m.mar", "http://good.example/m.mar"),
    ("http://good.example", "http://good.example/"),
    ("http://good.example?x=y", "http://good.example/?x=y"),
    ("http://h/a/./b/.", "http://h/a/b/"),
    ("http://h/%7e%2d%c3%bc%2f", "http://h/~-%C3%BC%2F"),
    ("http://h/a b/ü#f?x", "http://h/a%20b/%C3%BC"),
    ("http://h/x?a=%2e%2e/b c", "http://h/x?a=%2e%2e/b%20c"),  # what is signed stays as it is
    ("http://h/100%", "http://h/100%25"),
    ("http://münchen.example/x", "http://xn--mnchen-3ya.example/x"),
    ("http://\uff45vil.example/x", "http://evil.example/x"),
    ("http://[0:0::1]:80/x", "http://[::1]/x"),
    ("http://[::FFFF:127.0.0.1]/x", "http://127.0.0.1/x"),
    ("FILE:///a%20b.mar", "file:///a%20b.mar"),
    ("file://LocalHost/a/b.mar?x#y", "file:///a/b.mar"),
    ("file:////a/b.mar", "file:///a/b.mar"),
    ("file:///a/%252e%252e/b.mar", "file:///a/%252e%252e/b.mar"),  # a folder of that very name
]


@pytest.mark.parametrize(("url", "form"), FORMS)
def test_each_address_has_one_form(url: str, form: str) -> None:
    assert parse_address(url).text == form
    assert parse_address(form) == parse_address(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://allowed@evil/x", "user name"),
        ("http://allowed:80@evil/x", "user name"),
        ("http://allowed%40evil/x", "host is malformed"),
        ("http://allowed\\@evil/x", "backslash"),
        ("http://%65vil/x", "host is malformed"),
        ("http:///x", "host is malformed"),
        ("http://a..b/x", "host is malformed"),
        ("http://-a/x", "host is malformed"),
        ("http://h:99999/x", "port"),
        ("http://h:0/x", "port"),
        ("http://h:8o/x", "host is malformed"),
        ("http://127.1/x", "host is malformed"),
        ("http://2130706433/x", "host is malformed"),
        ("http://0x7f000001/x", "host is malformed"),
        ("http://0177.0.0.1/x", "host is malformed"),
        ("http://[::1%25eth0]/x", "host is malformed"),
        ("http://[127.0.0.1]/x", "host is malformed"),
        ("http://h/a\tb", "control character"),
        ("http://h/a\nb", "control character"),
        ("http://h/a%0d%0ab", "control character"),
        ("http://h/a%5c..%5cb", "backslash"),
        ("http://h/\u202ex", "control character"),
        ("http://h/..", "Relative path"),
        ("http://h/a/%2E./b", "Relative path"),
        ("http://h/a/..%2fb", "Relative path"),
        ("http://h/a/%252e%252e/b", "Relative path"),
        ("http://h/a/..;x/b", "Relative path"),
        ("file:///a/../b", "Relative path"),
        ("file:///a/%2e%2e/b", "Relative path"),
        ("file:///a/%2e%2e%2fb", "Relative path"),
        ("file:///a/\t/b", "control character"),
        ("file:///a/.\t./b", "control character"),
        ("file:///a/b%00.mar", "control character"),
        ("file:///a/%ff", "no UTF-8"),
        ("file://evil/a", "file:///path"),
        ("file://allowed@localhost/a", "file:///path"),
        ("ftp://h/x", "no http"),
    ],
)
def test_what_has_more_than_one_reading_is_refused(url: str, why: str) -> None:
    with pytest.raises(ModelNotFound, match=re.escape(why)):
        parse_address(url)


@pytest.mark.parametrize(
    ("url", "pattern", "is_match"),
    [
        ("http://good/m.mar", "http://good/.*", True),
        ("HTTP://GOOD:80/m.mar", "http://good/.*", True),
        ("http://good/m.mar", "http://good:80/.*", True),
        ("http://good:81/m.mar", "http://good/.*", False),
        ("http://good./m.mar", "http://good/.*", True),
        ("http://good/m.mar", r"http://good\./.*", True),
        ("http://good/m.mar", "http://good", False),
        ("http://good/m.mar", "HTTPS?://GOOD/M.*", True),
        ("http://evil/x?http://good/m.mar", "http://good/.*", False),
        ("http://evil/x#.mar", r"http://evil/.*\.mar", False),
        ("http://good/secret#.mar", r"http://good/.*\.mar", False),
        ("http://bücher.example/m", "http://bücher.example/.*", True),
        ("http://bücher.example/m", "http://xn--bcher-kva.example/.*", True),
        ("http://good/my%20models/m.mar", "http://good/my%20models/.*", True),
        ("https://b.s3.amazonaws.com/m.mar?X-Amz-Signature=a%2Fb", "https://b.s3.amazonaws.com/.*", True),
        ("file:///a b/m.mar", "file:///a b/.*", True),
        ("file:///a b/m.mar", "file:///a%20b/.*", True),
        ("file:///a%20b/m.mar", "file:///a b/.*", True),
        ("file:///a%2520b/m.mar", "file:///a%20b/.*", False),
        ("file:///a/m.mar", "file://localhost/a/.*", True),
        ("file:///private/x?file:///allowed/", "file:///allowed/.*", False),
        ("file:///allowed/m.mar", "file://.*", True),
    ],
)
def test_a_rule_is_matched_against_the_one_form(url: str, pattern: str, is_match: bool) -> None:
    assert is_allowed(parse_address(url), [pattern]) is is_match


@pytest.mark.parametrize(
    ("real", "pattern", "links", "is_match"),
    [
        ("/disk/m.mar", "file:///models/.*", {"/models": "/disk"}, True),
        ("/disk/a/m.mar", "https?://.*|file:///models/.*", {"/models": "/disk"}, True),
        ("/disks/m.mar", "file:///models/.*", {"/models": "/disk"}, False),
        ("/disk/m.mar", "file:///models/a.*", {"/models": "/disk"}, False),
        ("/v3.mar", r"file:///latest\.mar", {"/latest.mar": "/v3.mar"}, True),
        ("/private/x", "file:///models/pri.*", {"/models/pri": "/private"}, False),
        ("/private/x", "file:///mod(els)?/.*", {"/models": "/private"}, False),
        ("/etc/x", "file:///models/.*", {}, False),
    ],
)
def test_a_folder_that_the_rule_names_may_be_a_link(
    real: str, pattern: str, links: dict[str, str], is_match: bool
) -> None:
    assert is_allowed(file_address(real), [pattern], resolve=lambda path: links.get(path, path)) is is_match


PIECES = st.sampled_from(
    [
        *("a", "..", ".", "/", "//", "%2e", "%2E%2e", "%2f", "%252e", "%252f", "%5c", "\\", "\t", "%00", "%", ";"),
        *("?", "#", "@", ":", ":80", "good", "good.", "GOOD", "evil", "allowed", "private", "[", "]", "::1", "127.1"),
        *(" ", "ü", "%C3%BC"),
    ]
)
URLS = st.builds(
    lambda scheme, pieces: scheme + "".join(pieces),
    st.sampled_from(
        ["file://", "file:///allowed/", "http://", "http://good/models/", "HTTPS://good", "file://localhost/"]
    ),
    st.lists(PIECES | st.text(max_size=3), max_size=10),
)


@given(URLS)
@example("file:///allowed/%2e%2e/private/x.mar")
@example("http://good/models/%2e%2e%2fx")
def test_whatever_passes_lies_where_the_rule_said(url: str) -> None:
    try:
        address = parse_address(url)
    except ZtsError:
        return
    assert parse_address(address.text) == address
    if is_allowed(address, ["file:///allowed/.*"]):
        assert (posixpath.normpath(address.path) + "/").lower().startswith("/allowed/")
    if is_allowed(address, ["https?://good/models/.*"]):
        parts = urlsplit(address.text)  # as a client reads it
        assert (parts.hostname, parts.username, parts.port) == ("good", None, None)
        for path in (parts.path, unquote(parts.path), unquote(unquote(parts.path))):
            assert (posixpath.normpath(re.sub("//+", "/", path)) + "/").lower().startswith("/models/")


@given(URLS)
def test_a_file_name_stays_in_its_folder(url: str) -> None:
    try:
        name = file_name(url)
    except ZtsError:
        return
    assert os.path.basename(name) == name and name not in ("", ".", "..") and not UNSAFE.search(name)
    assert len(os.fsencode(name)) <= 255


def test_file_names_are_those_of_the_address() -> None:
    assert file_name("http://h/a%2Fb/kitchen%20sink.mar?x#y") == "kitchen sink.mar"
    assert file_name("file:///a/b.mar/") == "b.mar"
    for url in ("http://h/", "file:///", f"http://h/{'x' * 300}"):
        with pytest.raises(DownloadFailed):
            file_name(url)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\\b", "\x1b[31m", "a\u202eb"])
def test_names_of_the_store_have_one_reading(name: str) -> None:
    with pytest.raises(ModelNotFound):
        check_store_name(name)


@given(st.lists(st.sampled_from(["a", "..", ".", "/", "\\", " ", "C:", "~"]) | st.text(max_size=2), max_size=8))
def test_an_entry_of_an_archive_lies_in_it(pieces: list[str]) -> None:
    entry = "".join(pieces)
    if not why_outside(entry):
        for reading in (entry, entry.replace("\\", "/"), entry.strip()):
            assert (posixpath.normpath(posixpath.join("/model", reading)) + "/").startswith("/model/")


@given(st.text(max_size=20))
def test_a_plain_file_url_comes_back(path: str) -> None:
    quoted = "file:///" + quote(path.lstrip("/"), errors="replace")
    try:
        address = parse_address(quoted)
    except ZtsError:
        return
    assert address.path == "/" + unquote(quoted.removeprefix("file:///"))
