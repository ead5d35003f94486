"""Secrets in addresses: none of them is left, however they are written, and nothing else is changed."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from zts.masking import masked, masked_url, without_secrets_of

SECRET = "Zq9SECRETxK"
PARTS = [
    f"https://user:{SECRET}@h.example/m.mar",
    f"https://{SECRET}@h.example/m.mar",
    f"https://{SECRET}:x-oauth-basic@h.example:8443/m.mar",
    f"https://user:a@{SECRET}@h.example/m.mar",
    f"https://user:a/{SECRET}@h.example/m.mar",
    f"HTTP://user:a?{SECRET}@h.example/m.mar",
    f"https://h.example/m.mar#access_token={SECRET}",
    *(
        f"https://h.example/m.mar?v=1&{name}={SECRET}&last=2"
        for name in (
            *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "x-amz-signature", "X%2DAmz%2DSignature"),
            *("AWSAccessKeyId", "Signature", "X-Goog-Signature", "X-Goog-Credential", "Key-Pair-Id", "Policy", "sig"),
            *("token", "access_token", "key", "api_key", "apikey", "password", "pwd", "auth", "code", "client_secret"),
        )
    ),
    f"https://h.example/m.mar?v=1;sig={SECRET}",
    f"https://h.example/m.mar?next=https://h.example/b?token={SECRET}",
]


def encoded(text: str, times: int) -> str:
    for _ in range(times):
        text = quote(text, safe="")
    return text


@pytest.mark.parametrize("url", PARTS)
def test_no_output_shows_a_secret_of_an_address(url: str) -> None:
    assert SECRET not in masked_url(url)
    for text in (url, f"fetching {url}: 404.", f"'{url}'", f'{{"url": "{url}"}}', f"({url})", f"a\n{url}\nb"):
        assert SECRET not in masked(text), text
    for times in (0, 1, 2, 3, 4, 5, 9):
        line = f"POST /models?url={encoded(url, times)}&initial_workers=1 HTTP/1.1"
        assert SECRET not in masked(line), line
        assert masked(line).endswith("HTTP/1.1")
    assert SECRET not in without_secrets_of(url, f"nonnumeric port: '{SECRET}@h', {url}")
    assert masked(masked(url)) == masked(url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "digits.mar",
        "https://h.example/@team/m.mar?version=1.0&x=%20y",
        "https://[::1]:8080/m.mar?v=@2",
        "GET /models?limit=10&next_page_token= HTTP/1.1",
        "50% of a?b=c&&&",
        "what is the key? it is here",
        "a%zzb?%=1&=2",
        "POST /predictions/m%C3%BC?x=%0a HTTP/1.1",
        "is this basic? yes",
        "ipc://@name",
        "unix:///tmp/@x:y@z",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert masked(text) == text
    assert masked_url(text) == text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Basic", "basic"])
def test_keys_of_headers_are_hidden(scheme: str) -> None:
    assert masked(f"h11: {{'Authorization': '{scheme} {SECRET}=='}}") == f"h11: {{'Authorization': '{scheme} ***'}}"


def test_a_line_made_to_take_long_does_not() -> None:
    for piece in ("://", "?", "&a=%25", "=", "%", "@", "://a:", "%3F%3D", "Bearer "):
        assert len(masked(piece * 20_000)) > 0
