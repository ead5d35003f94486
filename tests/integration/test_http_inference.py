from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from tests.integration.fake_broker import FakeBroker, echo
from tests.integration.http_service import Serving, read_response, serving, wait_for
from zts.wire.heads import JobHead, ResultHead, pack_result_head, unpack_job_head, unpack_parts
from zts.wire.messages import HIGH, NORMAL, Job, Result


def head_of(serving: Serving, number: int = 0) -> JobHead:
    return unpack_job_head(serving.broker.jobs[number].head)


def failing(status: int, code: str, message: str) -> Any:
    head = pack_result_head(ResultHead(error=code))
    return lambda job: Result(job.job_id, status, head, message.encode())


def test_prediction_travels_as_a_job_and_its_result_comes_back() -> None:
    async def scenario() -> None:
        async with serving() as s:
            answer = await s.fetch(
                "POST", "/predictions/m/1.0/a/b?x=1", b"hi", Content_Type="text/plain; charset=x", x_Custom="1"
            )
            assert (answer.status, answer.reason, answer.body) == (200, "", b"hi")
            assert answer.headers["content-type"] == "text/plain"
            assert answer.headers["content-length"] == "2"
            assert answer.headers["connection"] == "keep-alive"
            assert answer.headers["pragma"] == "no-cache"
            assert answer.headers["cache-control"] == "no-cache; no-store, must-revalidate, private"
            assert answer.headers["expires"] == "Thu, 01 Jan 1970 00:00:00 UTC"
            assert "access-control-allow-origin" not in answer.headers
            uuid.UUID(answer.headers["x-request-id"])
            (job,) = s.broker.jobs
            assert (job.model, job.version, job.priority, job.timeout_ms, job.body) == ("m", "1.0", NORMAL, 0, b"hi")
            head = head_of(s)
            assert (head.kind, head.content_type) == ("body", "text/plain")
            assert head.request_id == answer.headers["x-request-id"]
            assert ("x-Custom", "1") in head.headers
            assert list(head.headers)[-2:] == [("explain", "False"), ("url_path", "a/b")]

    asyncio.run(scenario())


def test_every_method_predicts_and_head_has_no_body() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                assert (await s.fetch(method, "/predictions/m/", b"x")).body == b"x"
            answer = await s.fetch("HEAD", "/predictions/m")
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
            last = head_of(s, -1)
            assert last.content_type == ""
            assert ("content-length", "0") in last.headers

    asyncio.run(scenario())


def test_explanations_carry_the_explain_header() -> None:
    async def scenario() -> None:
        async with serving() as s:
            assert (await s.fetch("POST", "/explanations/m", b"x", explain="False")).status == 200
            assert dict(head_of(s).headers)["explain"] == "True"

    asyncio.run(scenario())


def test_sane_request_ids_are_kept_and_others_replaced() -> None:
    async def scenario() -> None:
        async with serving() as s:
            kept = await s.fetch("POST", "/predictions/m", b"", x_request_id="abc-1")
            assert kept.headers["x-request-id"] == "abc-1"
            replaced = await s.fetch("POST", "/predictions/m", b"", x_request_id="a" * 129)
            uuid.UUID(replaced.headers["x-request-id"])

    asyncio.run(scenario())


def test_our_headers_reach_the_job_and_bad_values_are_named() -> None:
    async def scenario() -> None:
        async with serving() as s:
            await s.fetch("POST", "/predictions/m", b"", x_zts_priority="high", x_zts_timeout_ms="2500")
            assert (s.broker.jobs[0].priority, s.broker.jobs[0].timeout_ms) == (HIGH, 2500)
            for header, value in (("x_zts_priority", "urgent"), ("x_zts_timeout_ms", "-1")):
                answer = await s.fetch("POST", "/predictions/m", b"", **{header: value})
                assert answer.status == 400
                assert answer.json()["type"] == "BadRequestException"
                assert header.replace("_", "-") in answer.json()["message"]

    asyncio.run(scenario())


def test_forms_travel_as_parts() -> None:
    multipart = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n\x89P\r\n'
        b'--b\r\nContent-Disposition: form-data; name="t"\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b--\r\n'
    )

    async def scenario() -> None:
        async with serving() as s:
            await s.fetch("POST", "/predictions/m", multipart, Content_Type="multipart/form-data; boundary=b")
            await s.fetch("POST", "/predictions/m", b"a=1&b=%20x+y", Content_Type="application/x-www-form-urlencoded")
            await s.fetch("POST", "/predictions/m", b"hello", Content_Type="application/x-www-form-urlencoded")
            assert [head_of(s, n).kind for n in range(3)] == ["parts"] * 3
            fields = [unpack_parts(job.body) for job in s.broker.jobs]
            assert sorted(fields[0]) == [("f", "image/png", b"\x89P"), ("t", "", b"hi")]
            assert fields[1] == [("a", "", b"1"), ("b", "", b" x y")]
            assert fields[2] == []

    asyncio.run(scenario())


def test_malformed_multipart_is_a_clear_400_and_makes_no_job() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for body in (b"--b\r\nnonsense", b"nonsense", b"--b\r\n\r\nnameless\r\n--b--"):
                answer = await s.fetch("POST", "/predictions/m", body, Content_Type="multipart/form-data; boundary=b")
                assert answer.status == 400
                assert answer.json()["message"].startswith("Malformed multipart body")
                assert answer.headers["connection"] == "close"
            assert s.broker.jobs == []

    asyncio.run(scenario())


def test_errors_have_torchserves_body_and_end_the_connection() -> None:
    async def scenario() -> None:
        async with serving(on_job=failing(404, "model_not_found", "Model not found: zzz")) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"POST /predictions/zzz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            answer = await read_response(reader)
            assert (answer.status, answer.reason, answer.headers["connection"]) == (404, "Not Found", "close")
            expected = (
                '{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: zzz"\n}\n'
            )
            assert answer.body.decode() == expected
            assert answer.headers["content-type"] == "application/json"
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_no_worker_keeps_torchserves_sentence_and_adds_the_cause() -> None:
    async def scenario() -> None:
        async with serving(on_job=failing(503, "queue_full", "The queue holds 100 jobs.")) as s:
            answer = await s.fetch("POST", "/predictions/m/1.0", b"")
            assert answer.status == 503
            body = answer.json()
            assert body["type"] == "ServiceUnavailableException"
            assert body["message"].startswith('Model "m" Version 1.0 has no worker to serve inference request. Please')
            assert body["message"].endswith("maxSequenceJobQueueSize. The queue holds 100 jobs.")

    asyncio.run(scenario())


def test_handlers_status_headers_and_reason_go_out() -> None:
    def on_job(job: Job) -> Result:
        headers = [("X-Abc", "1"), ("Content-Length", "99"), ("X-Bad", "a\r\nSet-Cookie: b"), ("x-request-id", "no")]
        head = pack_result_head(ResultHead(headers=headers, content_type="a/b", reason="Fine"))
        return Result(job.job_id, 201, head, b"ok")

    async def scenario() -> None:
        async with serving(on_job=on_job, cors_allowed_origin="*", cors_allowed_methods="GET, POST") as s:
            answer = await s.fetch("POST", "/predictions/m", b"", x_request_id="mine")
            assert (answer.status, answer.reason, answer.body) == (201, "Fine", b"ok")
            assert answer.headers["x-abc"] == "1"
            assert answer.headers["content-length"] == "2"
            assert answer.headers["x-request-id"] == "mine"
            assert "set-cookie" not in answer.headers
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "GET, POST"

    asyncio.run(scenario())


def test_untyped_bytes_are_octets() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: Result(job.job_id, 200, b"", b"\x00")) as s:
            answer = await s.fetch("POST", "/predictions/m", b"")
            assert answer.headers["content-type"] == "application/octet-stream"

    asyncio.run(scenario())


def test_declared_body_above_the_limit_is_refused_before_it_is_read() -> None:
    async def scenario() -> None:
        async with serving(max_request_bytes=1000) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
            expected = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"
            assert await asyncio.wait_for(reader.readexactly(len(expected)), 10) == expected
            # The rest is thrown away and the connection goes on.
            writer.write(b"x" * 1001 + b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
            writer.write(b"y" * 1000)
            answer = await read_response(reader)
            assert (answer.status, answer.body) == (200, b"y" * 1000)
            writer.close()
            await writer.wait_closed()
            assert len(s.broker.jobs) == 1

    asyncio.run(scenario())


def test_expecting_client_is_refused_without_sending() -> None:
    async def scenario() -> None:
        async with serving(max_request_bytes=1000) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(
                b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
            )
            everything = await asyncio.wait_for(reader.read(), 10)
            assert everything == b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_expecting_client_is_told_to_continue() -> None:
    async def scenario() -> None:
        async with serving() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(
                b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            )
            assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            writer.write(b"hi")
            assert (await read_response(reader)).body == b"hi"
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_chunked_body_above_the_limit_is_refused_when_it_exceeds() -> None:
    async def scenario() -> None:
        async with serving(max_request_bytes=1000) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
            expected = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            assert await asyncio.wait_for(reader.readexactly(len(expected)), 10) == expected
            writer.write(b"0\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            await writer.wait_closed()
            assert s.broker.jobs == []

    asyncio.run(scenario())


def test_large_bodies_pass_both_ways() -> None:
    async def scenario() -> None:
        async with serving(max_request_bytes=1 << 30) as s:
            body = bytes(range(256)) * 4 * 4096 * 2  # 8 MiB
            answer = await s.fetch("PUT", "/predictions/m", body)
            assert answer.status == 200
            assert answer.body == body

    asyncio.run(scenario())


def test_client_that_goes_away_has_its_job_cancelled() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None) as s:
            _, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            await wait_for(lambda: len(s.broker.jobs) == 1)
            writer.close()
            await writer.wait_closed()
            await wait_for(lambda: s.broker.cancelled == [s.broker.jobs[0].job_id], "CANCEL")
            # Its late result is counted and hurts nobody.
            s.broker.answer_held()
            await wait_for(lambda: s.service.link.counters()["unknown_results"] == 1)
            s.broker.on_job = echo
            assert (await s.fetch("POST", "/predictions/m", b"z")).body == b"z"

    asyncio.run(scenario())


def test_jobs_of_one_tick_leave_in_one_message() -> None:
    async def scenario() -> None:
        async with serving() as s:
            results: list[Result] = []
            for _ in range(50):
                s.service.link.submit("m", "", NORMAL, 0, b"", b"x", results.append)
            await wait_for(lambda: len(results) == 50)
            assert s.broker.job_messages == 1

    asyncio.run(scenario())


def test_many_jobs_of_one_tick_leave_by_the_hundred_and_no_answer_comes_within_submit() -> None:
    async def scenario() -> None:
        async with serving() as s:
            link, broker, results = s.service.link, s.broker, []
            ids = [link.submit("m", "", NORMAL, 0, b"", b"%d" % n, results.append) for n in range(128)]
            # They are on their way although this turn of the loop goes on; what they bring has to wait for its end.
            until = asyncio.get_running_loop().time() + 20
            while len(broker.jobs) < 128:
                assert asyncio.get_running_loop().time() < until
            ids += [link.submit("m", "", NORMAL, 0, b"", b"%d" % n, results.append) for n in range(128, 300)]
            link.cancel(ids[0])  # it has left
            link.cancel(ids[299])  # it has not
            assert not results
            await wait_for(lambda: len(results) >= 298 and len(broker.cancelled) == 2)
            assert [row.job_id for row in broker.jobs] == ids[:-1]
            assert broker.cancelled == [ids[0], ids[299]]
            assert broker.job_messages == 3
            assert {bytes(result.body) for result in results} == {b"%d" % n for n in range(1, 299)}

    asyncio.run(scenario())


def test_broken_answer_callback_does_not_hurt_the_others(caplog: Any) -> None:
    def explode(result: Result) -> None:
        raise RuntimeError("boom")

    async def scenario() -> None:
        async with serving() as s:
            results: list[Result] = []
            s.service.link.submit("m", "", NORMAL, 0, b"", b"x", explode)
            s.service.link.submit("m", "", NORMAL, 0, b"", b"y", results.append)
            await wait_for(lambda: len(results) == 1)

    asyncio.run(scenario())


def test_restarted_broker_gets_unanswered_jobs_again() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None) as s:
            waiting = asyncio.create_task(s.fetch("POST", "/predictions/m", b"keep", x_zts_timeout_ms="60000"))
            await wait_for(lambda: len(s.broker.jobs) == 1)
            s.broker.stop()
            second = FakeBroker(s.settings.endpoints, name="b2").start()
            try:
                assert (await asyncio.wait_for(waiting, 20)).body == b"keep"
                assert 0 < second.jobs[0].timeout_ms <= 60_500
                assert {hello.role for hello in second.hellos} == {"http"}
            finally:
                second.stop()

    asyncio.run(scenario())


def test_request_waits_for_a_broker_that_comes_later() -> None:
    async def scenario() -> None:
        async with serving(broker=False) as s:
            waiting = asyncio.create_task(s.fetch("POST", "/predictions/m", b"early"))
            late = FakeBroker(s.settings.endpoints).start()
            try:
                assert (await asyncio.wait_for(waiting, 20)).body == b"early"
            finally:
                late.stop()

    asyncio.run(scenario())


def test_without_a_broker_the_deadline_ends_the_wait_with_503() -> None:
    async def scenario() -> None:
        async with serving(broker=False) as s:
            answer = await s.fetch("POST", "/predictions/m", b"", x_zts_timeout_ms="50")
            assert answer.status == 503
            assert answer.json()["type"] == "ServiceUnavailableException"
            assert answer.json()["message"].startswith("No broker at ipc://")

    asyncio.run(scenario())


def test_silent_broker_is_backed_up_by_our_own_deadline() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None) as s:
            answer = await s.fetch("POST", "/predictions/m", b"", x_zts_timeout_ms="50")
            assert (answer.status, answer.json()["type"]) == (408, "RequestTimeoutException")
            assert "50 ms" in answer.json()["message"]
            await wait_for(lambda: len(s.broker.cancelled) == 1)

    asyncio.run(scenario())


def test_health_routes() -> None:
    state: dict[str, Any] = {"healthy": True, "ready": True, "models": {"m": {"ready_workers": 1}}}

    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, state)) as s:
            answer = await s.fetch("GET", "/ping")
            assert (answer.status, answer.body) == (200, b'{\n  "status": "Healthy"\n}\n')
            assert (await s.fetch("GET", "/ready")).status == 200
            assert (await s.fetch("GET", "/models/m/ready")).status == 200
            assert (await s.fetch("GET", "/models/zz/ready")).json()["type"] == "ModelNotFoundException"
            state.update(healthy=False, ready=False, models={"m": {"ready_workers": 0}})
            assert (await s.fetch("POST", "/ping")).status == 500
            assert (await s.fetch("GET", "/ping")).json() == {"status": "Unhealthy"}
            assert (await s.fetch("GET", "/ready")).status == 503
            assert (await s.fetch("GET", "/models/m/ready")).status == 503
            assert (await s.fetch("GET", "/live")).status == 200

    asyncio.run(scenario())


def test_paths_that_nobody_serves() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for target in ("/predictions", "/predictions/", "/zzz", "/a/b/c", "/models", "/metrics"):
                answer = await s.fetch("GET", target)
                assert (answer.status, answer.json()["type"]) == (404, "ResourceNotFoundException"), target
                assert answer.json()["message"] == "Requested resource is not found, please refer to API document."
            answer = await s.fetch("GET", "/")
            assert (answer.status, answer.json()["type"]) == (405, "MethodNotAllowedException")
            assert answer.headers["allow"] == "OPTIONS"
            answer = await s.fetch("GET", "/predictions/m//x")
            assert (answer.status, answer.json()["type"]) == (404, "ModelVersionNotFoundException")
            assert (await s.fetch("GET", "/predictions/" + "n" * 300)).json()["type"] == "ModelNotFoundException"

    asyncio.run(scenario())


def test_api_description_is_openapi_and_names_the_routes() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, {"versions": []})) as s:
            for method, target in (("OPTIONS", "/"), ("GET", "/api-description"), ("POST", "/api-description")):
                document = (await s.fetch(method, target)).json()
                assert document["openapi"] == "3.0.1"
                assert "/predictions/{model_name}" in document["paths"]
            assert "/predictions/m" in (await s.fetch("OPTIONS", "/predictions/m")).json()["paths"]
            assert s.broker.jobs == []

    asyncio.run(scenario())


def test_unexpected_failure_is_a_fixed_500_and_others_go_on(monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with serving() as s:
            submit = s.service.link.submit

            def broken(*args: Any) -> int:
                raise RuntimeError("secret")

            monkeypatch.setattr(s.service.link, "submit", broken)
            answer = await s.fetch("POST", "/predictions/m", b"")
            assert answer.status == 500
            assert "secret" not in answer.body.decode()
            monkeypatch.setattr(s.service.link, "submit", submit)
            assert (await s.fetch("POST", "/predictions/m", b"z")).body == b"z"

    asyncio.run(scenario())


def test_garbage_is_refused_and_others_go_on() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for garbage in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
                writer.write(garbage)
                assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400 ")
                writer.close()
                await writer.wait_closed()
            assert (await s.fetch("POST", "/predictions/m", b"z")).body == b"z"

    asyncio.run(scenario())


def test_stopping_finishes_open_requests_and_accepts_no_more() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None) as s:
            port = s.port()
            waiting = asyncio.create_task(s.fetch("POST", "/predictions/m", b"last"))
            await wait_for(lambda: len(s.broker.jobs) == 1)
            stopping = asyncio.create_task(s.service.stop())
            await asyncio.sleep(0)
            s.broker.answer_held()
            answer = await asyncio.wait_for(waiting, 20)
            assert (answer.body, answer.headers["connection"]) == (b"last", "close")
            await asyncio.wait_for(stopping, 20)
            try:
                await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            raise AssertionError("still accepting")

    asyncio.run(scenario())


def test_access_log_has_torchserves_form(caplog: Any) -> None:
    async def scenario() -> None:
        async with serving() as s:
            with caplog.at_level("INFO", logger="zts.access"):
                await s.fetch("POST", "/predictions/m?a=1", b"x", x_request_id="rid-1")
        (record,) = [record for record in caplog.records if record.name == "zts.access"]
        address, request = record.getMessage().split(" ", 1)
        assert address.startswith("/127.0.0.1:")
        assert request.startswith('"POST /predictions/m?a=1 HTTP/1.1" 200 ')
        assert record.request_id == "rid-1"

    asyncio.run(scenario())


def test_beats_carry_counters_and_hello_the_addresses() -> None:
    async def scenario() -> None:
        async with serving() as s:
            await s.fetch("POST", "/predictions/m", b"x")
            await wait_for(lambda: any(beat.info["counters"]["requests_2xx"] == 1 for beat in s.broker.beats))
            info = next(hello.info for hello in s.broker.hellos if "key" not in hello.info)
            assert s.service.addresses["inference"] in info["addresses"]
            with open(f"{s.settings.runtime_dir}/http-0.json") as file:
                assert json.load(file)["metrics"] == s.service.addresses["metrics"]

    asyncio.run(scenario())
