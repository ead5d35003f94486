"""Every form of path of the inference API, the open inference protocol, and customized describe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.fake_broker import echo
from tests.integration.http_service import Serving, read_response, serving
from tests.integration.test_http_inference import head_of
from tests.integration.test_http_management import RECORD, Rules
from tests.names import REACHABLE
from zts.wire.heads import ResultHead, pack_result_head, unpack_parts
from zts.wire.messages import Job, Result

FORM = {"Content_Type": "application/x-www-form-urlencoded"}
TEXT = {"Content_Type": "text/plain; charset=utf-8"}


def set_by_server(serving: Serving) -> Mapping[str, str]:
    return {name: value for name, value in head_of(serving, -1).headers if name in ("explain", "url_path")}


@pytest.mark.parametrize(
    ("target", "model", "version", "headers"),
    [
        ("/predictions/m", "m", "", {"explain": "False", "url_path": ""}),
        ("/predictions/m/1.0/a//b/?q=1", "m", "1.0", {"explain": "False", "url_path": "a//b"}),
        ("/predictions/m/1.0/a%20b/c%2Fd", "m", "1.0", {"explain": "False", "url_path": "a b/c/d"}),
        ("/explanations/m/1.0/x", "m", "1.0", {"explain": "True", "url_path": "x"}),
        ("/v1/models/m:predict?q=1", "m", "", {"explain": "False"}),
        ("/v1/models/m:explain", "m", "", {"explain": "True"}),
        ("/v2/models/m/infer?q=1", "m", "", {"explain": "False"}),
        ("/v2/models/m/explain", "m", "", {"explain": "True"}),
        ("/models/m/invoke", "m", "", {}),
        ("/m/predict", "m", "", {}),
        ("/m/1.0/predict", "m", "1.0", {}),
    ],
)
def test_forms_of_paths(target: str, model: str, version: str, headers: Mapping[str, str]) -> None:
    async def scenario() -> None:
        async with serving() as s:
            for method in ("POST", "GET"):
                assert (await s.fetch(method, target, b"x", **TEXT)).body == b"x"
                job = s.broker.jobs[-1]
                assert (job.model, job.version) == (model, version)
                assert set_by_server(s) == headers
                # No query, or none that counts: the body is the row's only value.
                assert (head_of(s, -1).kind, head_of(s, -1).content_type) == ("body", "text/plain")

    asyncio.run(scenario())


# Where a model's name stands in a path or a query; those that take a version, too.
NAMED = ["/predictions/{}", "/explanations/{}", "/v1/models/{}:predict", "/v1/models/{}:explain", "/v2/models/{}/infer"]
NAMED += ["/v2/models/{}/explain", "/models/{}/invoke", "/{}/predict", "/invocations?model_name={}"]
VERSIONED = ["/predictions/{}/{}", "/explanations/{}/{}/more", "/{}/{}/predict"]


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_names_travel_whole_through_every_route_of_inference(wire: str) -> None:
    async def scenario() -> None:
        async with serving(http_wire=wire) as s:
            for name in REACHABLE:
                encoded = quote(name, safe="")
                for route in NAMED:
                    answer = await s.fetch("POST", route.format(encoded), b"x", **TEXT)
                    assert (answer.status, s.broker.jobs[-1].model) == (200, name), route
                for route in VERSIONED:
                    answer = await s.fetch("POST", route.format(encoded, encoded), b"x", **TEXT)
                    job = s.broker.jobs[-1]
                    assert (answer.status, job.model, job.version) == (200, name, name), route
            # A slash ends a segment, encoded or not; in a query it is part of the name.
            await s.fetch("POST", "/invocations?model_name=org%2Fm", b"x", **TEXT)
            assert s.broker.jobs[-1].model == "org/m"
            for target in ("/predictions/" + "x" * 257, "/predictions/m/" + "1" * 257):
                assert (await s.fetch("POST", target, b"x", **TEXT)).status == 404

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["/invocations?model_name=m&", "/models/m/invoke?", "/m/predict?", "/m/1/predict?"])
def test_sagemaker_and_legacy_forms_merge_the_query_into_the_row(target: str) -> None:
    async def scenario() -> None:
        async with serving() as s:
            await s.fetch("POST", target + "a=1&a=2&b=%C3%A4", b"x", **TEXT)
            named = [("model_name", "", b"m")] if "model_name" in target else []
            fields = [*named, ("a", "", b"2"), ("b", "", "ä".encode())]
            assert unpack_parts(s.broker.jobs[0].body) == [*fields, ("body", "text/plain", b"x")]
            await s.fetch("POST", target + "a=1", b"a=3&c=4", **FORM)
            fields = [*named, ("a", "", b"1"), ("a", "", b"3"), ("c", "", b"4")]
            assert unpack_parts(s.broker.jobs[1].body) == fields
            assert s.broker.jobs[1].model == "m"

    asyncio.run(scenario())


def startup(*names: str) -> Rules:
    rows = [{"name": name, "version": "1.0", "loaded_at_startup": True} for name in names]
    return Rules(status=(200, {"models": [*rows, {"name": "later", "version": "1.0", "loaded_at_startup": False}]}))


def test_invocations_without_a_name_run_the_only_model_of_the_start() -> None:
    async def scenario() -> None:
        async with serving(on_request=startup("only", "only")) as s:
            await s.fetch("POST", "/invocations", b"x")
            await s.fetch("POST", "/invocations", b"model_name=form", **FORM)
            await s.fetch("POST", "/invocations?model_name=named", b"x")
            assert [job.model for job in s.broker.jobs] == ["only", "only", "named"]

    asyncio.run(scenario())


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_invocations_look_for_a_form_field_when_the_start_says_nothing(names: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with serving(on_request=startup(*names)) as s:
            await s.fetch("POST", "/invocations", b"model_name=form&x=1", **FORM)
            assert [job.model for job in s.broker.jobs] == ["form"]
            answer = await s.fetch("POST", "/invocations", b"model_name=form")
            assert (answer.status, answer.json()["message"]) == (400, "Parameter model_name is required.")

    asyncio.run(scenario())


def test_paths_that_run_nothing() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for target in (
                "/invocations/x",
                "/models/m",
                "/models/m/1.0",
                "/m/predict/x",
                "/a/b/c/predict",
                "/v1/models/m",
                "/v1/models/m:other",
                "/v1/models/:predict",
                "/models//invoke",
                "//predict",
                "/v1/models/m:predict/x",
                "/v2/models/m/other",
                "/v2",
                "/v2/health/live",
                "/wfpredict",
                "/explanations/",
                "//ping",
                "/token?type=inference",
            ):
                answer = await s.fetch("POST", target)
                assert (answer.status, answer.json()["type"]) == (404, "ResourceNotFoundException"), target
            assert s.broker.jobs == []

    asyncio.run(scenario())


def test_workflows_are_refused_in_torchserves_form() -> None:
    async def scenario() -> None:
        async with serving() as s:
            for target in ("/wfpredict/w", "/WFPredict/w"):
                answer = await s.fetch("POST", target, b"x")
                assert (answer.status, answer.json()["type"]) == (404, "WorkflowNotFoundException")
                assert answer.json()["message"].startswith("Workflow not found: w")
            for method, target, status in (
                ("GET", "/workflows", 200),
                ("POST", "/workflows", 400),
                ("POST", "/workflows?url=w.war", 400),
                ("GET", "/workflows/w", 404),
                ("DELETE", "/workflows/w", 404),
                ("PUT", "/workflows/w", 405),
            ):
                assert (await s.fetch(method, target, surface="management")).status == status, (method, target)

    asyncio.run(scenario())


def test_open_inference_protocol_when_it_is_on() -> None:
    async def scenario() -> None:
        async with serving(open_inference_protocol=True) as s:
            server = (await s.fetch("GET", "/v2")).json()
            assert (server["name"], server["version"]) == ("Torchserve", "0.12.0")
            assert server["extenstion"] == server["extensions"] == ["kserve", "kubeflow"]
            assert (await s.fetch("GET", "/v2/health/live")).json() == {"live": True}
            assert (await s.fetch("GET", "/v2/health/ready")).json() == {"ready": True}
            for target in ("/v2/models/m", "/v2/models/m/ready", "/v2/health", "/v2/models/m/versions"):
                assert (await s.fetch("GET", target)).status == 404, target
            answer = await s.fetch("POST", "/v2/models/m/versions/1.0/infer", b"x")
            assert (answer.status, answer.json()) == (501, {"error": "Model versioning is not yet supported."})
            assert (await s.fetch("POST", "/v2/models/m/infer", b"x")).body == b"x"
            assert "/v2/health/live" in (await s.fetch("OPTIONS", "/")).json()["paths"]

    asyncio.run(scenario())


def test_chunked_body_reaches_the_handler_with_its_length() -> None:
    async def scenario() -> None:
        async with serving() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"2\r\nhi\r\n0\r\n\r\n")
            assert (await read_response(reader)).body == b"hi"
            names = {name.lower(): value for name, value in head_of(s).headers}
            assert names["content-length"] == "2"
            assert "transfer-encoding" not in names
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


WORKING = {**RECORD, "workers": [{"worker_id": "9000", "state": "ready"}]}


def describing(body: bytes, status: int = 200, **head: Any) -> Any:
    def on_job(job: Job) -> Result:
        return Result(job.job_id, status, pack_result_head(ResultHead(**head)), body)

    return on_job


@pytest.mark.parametrize(
    ("body", "metadata"),
    [(b'{"a": [1]}', {"a": [1]}), (b"[1]", {}), (b'"text"', {}), (b"no json", {}), (b"{}", {})],
)
def test_customized_describe_asks_the_handler(body: bytes, metadata: Any) -> None:
    rules = Rules(models__describe=(200, {"versions": [WORKING]}))

    async def scenario() -> None:
        async with serving(on_request=rules, on_job=describing(body)) as s:
            answer = await s.fetch("GET", "/models/noop?customized=TRUE", surface="management", X_Mine="1")
            (record,) = answer.json()
            assert record["customizedMetadata"] == metadata
            assert list(record)[-1] == "customizedMetadata"
            (job,) = s.broker.jobs
            assert (job.model, job.version) == ("noop", "1.11")
            head = head_of(s)
            assert (head.kind, unpack_parts(job.body)) == ("parts", [])
            assert {("describe", "True"), ("X-Mine", "1"), ("content-length", "0")} <= {*head.headers}
            plain = await s.fetch("GET", "/models/noop?customized=false", surface="management")
            assert "customizedMetadata" not in plain.json()[0]

    asyncio.run(scenario())


NO_WORKER = 'Model "noop" has no worker to serve describe request. Please use scale workers API to add workers.'


def test_customized_describe_of_all_versions_leaves_out_who_cannot_answer() -> None:
    other = {**RECORD, "version": "2.0"}

    async def scenario() -> None:
        rules = Rules(models__describe=(200, {"versions": [WORKING, other]}))
        async with serving(on_request=rules, on_job=describing(b'{"a": 1}')) as s:
            first, second = (await s.fetch("GET", "/models/noop/all?customized=true", surface="management")).json()
            assert first["customizedMetadata"] == {"a": 1}
            assert "customizedMetadata" not in second

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("record", "on_job", "status", "message"),
    [
        (RECORD, echo, 503, NO_WORKER),
        (WORKING, describing(b"gone", 503, error="no_worker"), 503, NO_WORKER + " gone"),
        (WORKING, describing(b"Prediction failed", 503, error="handler_failed"), 503, "Prediction failed"),
        (WORKING, describing(b"late", 408, error="deadline"), 500, "Failed to get customized model matadata."),
    ],
)
def test_customized_describe_that_fails(record: Any, on_job: Any, status: int, message: str) -> None:
    async def scenario() -> None:
        rules = Rules(models__describe=(200, {"versions": [record]}))
        async with serving(on_request=rules, on_job=on_job) as s:
            answer = await s.fetch("GET", "/models/noop?customized=true", surface="management")
            assert (answer.status, answer.json()["message"]) == (status, message)

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_what_is_no_http_gets_torchserves_400(wire: str) -> None:
    expected = {"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."}

    async def scenario() -> None:
        async with serving(http_wire=wire, cors_allowed_origin="*") as s:
            for surface in ("inference", "management"):
                for garbage in (
                    b"nonsense\r\n\r\n",
                    b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
                    b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n",
                    b"POST /models HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                ):
                    reader, writer = await asyncio.open_connection("127.0.0.1", s.port(surface))
                    writer.write(garbage)
                    answer = await read_response(reader)
                    assert (answer.status, answer.reason, answer.json()) == (400, "Bad Request", expected), garbage[:40]
                    assert answer.headers["connection"] == "close"
                    assert answer.headers["access-control-allow-origin"] == "*"
                    assert json.loads(answer.body) == expected
                    writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_old_clients_and_those_that_want_to_close(wire: str) -> None:
    async def scenario() -> None:
        async with serving(http_wire=wire, on_request=lambda verb, args: (200, {"healthy": True})) as s:
            for request, connection in (
                (b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
                (b"GET /ping HTTP/1.0\r\n\r\n", "close"),
                (b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
                (b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n", "keep-alive"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
                writer.write(request)
                answer = await read_response(reader)
                assert answer.headers["connection"] == connection, request
                if connection == "close":
                    assert await asyncio.wait_for(reader.read(), 10) == b""
                else:
                    writer.write(request)
                    assert (await read_response(reader)).status == 200
                writer.close()

    asyncio.run(scenario())
