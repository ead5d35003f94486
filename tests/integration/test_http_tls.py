from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http_service import Response, Serving, read_response, serving
from zts.errors import ConfigError
from zts.http.listen import certificates
from zts.http.listen.tls import server_context
from zts.settings import Endpoints, Settings
from zts.supervisor.instance import Instance

HTTPS: dict[str, Any] = {
    "inference_address": "https://127.0.0.1:0",
    "management_address": "https://127.0.0.1:0",
    "on_request": lambda verb, args: (200, {"healthy": True, "models": []}),
}
ROUTES = [("inference", "/ping"), ("management", "/models")]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificates with openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, pem, p12 = (str(folder / name) for name in ("key.pem", "cert.pem", "s.p12"))
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, "-keyout", key, "-out", pem)
    openssl("pkcs12", "-export", "-inkey", key, "-in", pem, "-out", p12, "-passout", "pass:secret")
    openssl("rsa", "-aes128", "-passout", "pass:secret", "-in", key, "-out", str(folder / "locked.pem"))
    (folder / "s.jks").write_bytes(b"\xfe\xed\xfe\xed\x00\x00\x00\x02")
    return folder


async def fetch_tls(s: Serving, surface: str, target: str, context: ssl.SSLContext, body: bytes = b"") -> Response:
    reader, writer = await asyncio.open_connection("127.0.0.1", s.port(surface), ssl=context)
    try:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + body)
        return await read_response(reader)
    finally:
        writer.close()
        await writer.wait_closed()


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("wire", ["fast", "tornado"])
@pytest.mark.parametrize("source", ["pem", "p12"])
def test_https_is_served_from_files(pems: Path, wire: str, source: str) -> None:
    files = {"certificate_file": str(pems / "cert.pem"), "private_key_file": str(pems / "key.pem")}
    if source == "p12":
        files = {"keystore": str(pems / "s.p12"), "keystore_pass": "secret"}

    async def scenario() -> None:
        async with serving(http_wire=wire, **HTTPS, **files) as s:
            context = trusting(pems / "cert.pem")
            for surface, target in ROUTES:
                assert (await fetch_tls(s, surface, target, context)).status == 200
                assert s.service.addresses[surface].startswith("https://127.0.0.1:")
            body = b"x" * 3_000_000
            assert (await fetch_tls(s, "inference", "/predictions/m", context, body)).body == body
            # Whoever never finishes the handshake hurts nobody.
            _reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"\x16\x03\x01\x00\x05hello")
            assert (await fetch_tls(s, "inference", "/ping", context)).status == 200
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_plain_http_on_a_tls_port_is_told_so(pems: Path, wire: str) -> None:
    files = {"certificate_file": str(pems / "cert.pem"), "private_key_file": str(pems / "key.pem")}

    async def scenario() -> None:
        async with serving(http_wire=wire, cors_allowed_origin="*", **HTTPS, **files) as s:
            for surface, target in ROUTES:
                answer = await s.fetch("GET", target, surface=surface)
                assert (answer.status, answer.headers["connection"]) == (403, "close")
                assert answer.json() == {"status": "This TorchServe instance only accepts HTTPS requests"}
                assert answer.headers["access-control-allow-origin"] == "*"
            assert s.broker.jobs == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("version", "is_spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_versions_of_tls(pems: Path, version: str, is_spoken: bool) -> None:
    files = {"certificate_file": str(pems / "cert.pem"), "private_key_file": str(pems / "key.pem")}

    async def scenario() -> None:
        async with serving(**HTTPS, **files) as s:
            context = careless()
            with pytest.warns(DeprecationWarning) if version == "TLSv1_1" else nothing():
                context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
            if is_spoken:
                assert (await fetch_tls(s, "inference", "/ping", context)).status == 200
            else:
                with pytest.raises((ssl.SSLError, OSError)):
                    await fetch_tls(s, "inference", "/ping", context)

    asyncio.run(scenario())


class nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def test_https_without_files_has_a_certificate_that_all_processes_share(tmp_path: Path) -> None:
    settings = Settings(runtime_dir=str(tmp_path), endpoints=Endpoints.in_folder(str(tmp_path)))
    server_context(settings)
    made = (tmp_path / "self_signed.pem").read_bytes()
    assert (tmp_path / "self_signed.pem").stat().st_mode & 0o777 == 0o600
    server_context(settings)
    assert (tmp_path / "self_signed.pem").read_bytes() == made
    assert [path.name for path in tmp_path.iterdir()] == ["self_signed.pem"]

    async def scenario() -> None:
        async with serving(**HTTPS) as s:
            assert (await fetch_tls(s, "inference", "/ping", careless())).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"certificate_file": "cert.pem"}, "private_key_file is not set"),
        ({"private_key_file": "key.pem"}, "certificate_file is not set"),
        ({"certificate_file": "nothing.pem", "private_key_file": "key.pem"}, "nothing.pem: there is no such file"),
        ({"certificate_file": "key.pem", "private_key_file": "key.pem"}, "cannot be used"),
        ({"certificate_file": "cert.pem", "private_key_file": "locked.pem"}, "without a password"),
        ({"keystore": "nothing.p12"}, "cannot be read"),
        ({"keystore": "s.p12", "keystore_pass": "wrong"}, "cannot be read as PKCS12"),
        ({"keystore": "key.pem", "keystore_pass": "x"}, "cannot be read as PKCS12"),
        ({"keystore": "s.jks"}, "keytool -importkeystore -srckeystore .*s.jks -destkeystore s.p12"),
    ],
)
def test_files_that_cannot_be_used_are_named(pems: Path, values: dict[str, str], why: str) -> None:
    files = {name: text if name == "keystore_pass" else str(pems / text) for name, text in values.items()}
    with pytest.raises(ConfigError, match=why):
        server_context(Settings(runtime_dir=str(pems), endpoints=Endpoints.in_folder("/r"), **files))


def test_without_any_tool_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_cryptography", lambda: None)
    monkeypatch.setattr(certificates.shutil, "which", lambda name: None)
    for make in (certificates.self_signed, lambda: certificates.from_pkcs12(b"", "", "keystore=x")):
        with pytest.raises(ConfigError, match=r"zts\[tls\]"):
            make()


def test_keystore_is_read_with_the_package_too(pems: Path) -> None:
    pytest.importorskip("cryptography")
    pem = certificates.from_pkcs12((pems / "s.p12").read_bytes(), "secret", "keystore=s.p12")
    assert b"PRIVATE KEY" in pem and b"BEGIN CERTIFICATE" in pem
    assert b"BEGIN CERTIFICATE" in certificates.self_signed()


def test_unix_sockets_serve_all_three_apis(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"zts-u-{tmp_path.name[-20:]}"
    folder.mkdir()
    names = ("inference", "management", "metrics")
    addresses: dict[str, Any] = {f"{name}_address": f"unix:{folder}/{name}.sock" for name in names}

    async def scenario() -> None:
        async with serving(on_request=HTTPS["on_request"], **addresses):
            for name, target in (*ROUTES, ("metrics", "/api-description")):
                reader, writer = await asyncio.open_unix_connection(str(folder / f"{name}.sock"))
                writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                answer = await read_response(reader)
                assert answer.status == 200
                assert json.loads(answer.body)
                writer.close()
        assert list(folder.iterdir()) == []

    try:
        asyncio.run(scenario())
    finally:
        shutil.rmtree(folder)


def test_a_certificate_of_ours_that_is_old_is_made_again(tmp_path: Path) -> None:
    settings = Settings(runtime_dir=str(tmp_path), endpoints=Endpoints.in_folder(str(tmp_path)))
    path = tmp_path / "self_signed.pem"
    server_context(settings)
    first = path.read_bytes()
    server_context(settings)
    assert path.read_bytes() == first
    old = path.stat().st_mtime - 301 * 86_400
    os.utime(path, (old, old))
    server_context(settings)
    assert path.read_bytes() != first
    # A new instance may have another host name.
    instance = Instance(tmp_path)
    instance.acquire()
    assert not path.exists()
    instance.release()
