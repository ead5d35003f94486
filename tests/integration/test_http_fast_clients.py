"""The fast wire and programs that others wrote: h11, curl, OpenSSL; and Unix sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import h11
import pytest

from tests.integration.fast_echo import Echo, refusal, run, wire
from tests.integration.http_service import serving
from zts.http.http1.server import FastServer
from zts.wire.heads import unpack_job_head

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


async def curl(*args: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--max-time", "20", *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


@needs_curl
def test_curl_keeps_its_connection_and_sends_in_every_way(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 3_000_000)

    async def scenario() -> None:
        async with wire() as w:
            url = f"http://127.0.0.1:{w.port}"
            out = await curl("-v", "-d", "abc", f"{url}/a", f"{url}/b")
            assert "POST /a abcPOST /b abc" in out.replace("\n", "") or out.count("POST /") >= 2
            assert "Re-using existing" in out
            chunked = await curl("-H", "Transfer-Encoding: chunked", "-T", str(big), f"{url}/c")
            assert chunked == "PUT /c " + "x" * 3_000_000
            expecting = await curl("-H", "Expect: 100-continue", "-T", str(big), f"{url}/d")
            assert expecting == "PUT /d " + "x" * 3_000_000
            assert await curl("--http1.0", "-d", "abc", f"{url}/e") == "POST /e abc"
            assert await curl("--http2", "-d", "abc", f"{url}/f") == "POST /f abc"  # asks for an upgrade to HTTP/2
            assert "400 Bad Request" in await curl("-i", "-H", "x: " + "y" * 9000, f"{url}/g")
            assert w.echo.gone == []

    run("uvloop", scenario())


def test_h11_understands_pipelined_answers_of_the_whole_server() -> None:
    async def scenario() -> None:
        async with serving() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            client = h11.Connection(h11.CLIENT)
            for number in range(20):
                body = b"%d" % number * number
                request = h11.Request(
                    method="POST", target="/predictions/m", headers=[("Host", "a"), ("Content-Length", str(len(body)))]
                )
                for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                    writer.write(client.send(event) or b"")
                status, answer = await h11_answer(client, reader)
                assert (status, answer) == (200, body)
                client.start_next_cycle()
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


async def h11_answer(client: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, body = 0, b""
    while True:
        event: Any = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await asyncio.wait_for(reader.read(65536), 20))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body


def test_whole_server_answers_bad_bytes_in_torchserves_form() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for raw in (b"\x00\x01garbage\r\n\r\n", b"GET /" + b"a" * 5000, b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
                writer.write(raw)
                head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
                assert b"\r\nconnection: close" in head
                assert b"\r\nx-request-id: " in head
                assert body.decode() == (
                    '{\n  "code": 400,\n  "type": "BadRequestException",\n  "message": "Invalid HTTP message."\n}\n'
                )
                writer.close()
                await writer.wait_closed()
            await s.fetch("GET", "/live")
            assert s.broker.jobs == []

    asyncio.run(scenario())


def test_tornados_own_server_serves_inference_when_asked() -> None:
    async def scenario() -> None:
        async with serving(http_wire="tornado") as s:
            assert (await s.fetch("POST", "/predictions/m", b"x", Content_Type="text/plain")).body == b"x"
            assert not any(isinstance(server, FastServer) for server in s.service._servers)
        async with serving() as s:
            assert [isinstance(server, FastServer) for server in s.service._servers] == [True, False, False]

    asyncio.run(scenario())


def test_same_head_again_makes_the_same_job_with_an_id_of_its_own() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for body in (b"one", b"two", b"six"):
                answer = await s.fetch("POST", "/predictions/m/2.0/a", body, Content_Type="text/plain; x=y", xA="1")
                assert answer.body == body
            heads = [unpack_job_head(job.head) for job in s.broker.jobs]
            assert len({head.request_id for head in heads}) == 3
            assert {(job.model, job.version, job.body) for job in s.broker.jobs} == {
                ("m", "2.0", b"one"),
                ("m", "2.0", b"two"),
                ("m", "2.0", b"six"),
            }
            assert heads[0]._replace(request_id="") == heads[2]._replace(request_id="")
            assert heads[0].content_type == "text/plain"
            assert list(heads[2].headers)[-2:] == [("explain", "False"), ("url_path", "a")]

    asyncio.run(scenario())


@needs_openssl
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_tls(tmp_path: Path, loop_name: str) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=30)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    client_side.check_hostname = False
    body = b"z" * 1_000_000
    raw = b"POST /t HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def scenario() -> None:
        async with wire(ssl_context=server_side) as w:
            client = await w.connect(raw * 2, ssl=client_side, limit=1 << 22)
            assert [await client.read(), await client.read()] == [b"POST /t " + body] * 2
            client.send(b"GET /u HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert await client.read() == b"GET /u "
            assert await client.rest() == b""

    run(loop_name, scenario())


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_unix_sockets_and_a_client_that_leaves_one(loop_name: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = f"{folder}/s"
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(path)
            listening.listen()
            echo = Echo()
            server = FastServer(echo, loop=loop, refusal=refusal)
            server.add_sockets([listening])
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /x HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\n")
            assert await asyncio.wait_for(reader.readuntil(b"/x "), 20)
            assert next(iter(server.connections)).peer == "/unix"
            writer.close()
            await writer.wait_closed()
            deadline = loop.time() + 20
            while not echo.gone:
                assert loop.time() < deadline
                await asyncio.sleep(0.01)
            server.stop()
            await server.close_all_connections()

    run(loop_name, scenario())
