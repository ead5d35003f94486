from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.http_service import Serving, serving
from tests.names import REACHABLE
from tests.ports import free_port

RECORD: dict[str, Any] = {
    "name": "noop",
    "version": "1.11",
    "default": True,
    "url": "noop.mar",
    "runtime": "python",
    "min_workers": 1,
    "max_workers": 1,
    "batch_size": 1,
    "max_batch_delay_ms": 100,
    "response_timeout_s": 120.0,
    "startup_timeout_s": 120.0,
    "job_queue_size": 100,
    "pending_jobs": 3,
    "workers": [],
}


class Rules:
    """What the broker replies to each verb, and what it was asked."""

    def __init__(self, **replies: tuple[int, Mapping[str, Any]]) -> None:
        self.replies = {name.replace("__", "."): reply for name, reply in replies.items()}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, verb: str, args: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        self.asked.append((verb, args))
        return self.replies[verb]


async def status_of(serving: Serving, method: str, target: str) -> tuple[int, str]:
    answer = await serving.fetch(method, target, surface="management")
    return answer.status, answer.json().get("status") or answer.json()["message"]


@pytest.mark.parametrize(
    ("status", "workers", "text"),
    [
        (200, 1, 'Model "m" Version: 1.0 registered with 1 initial workers'),
        (
            200,
            0,
            'Model "m" Version: 1.0 registered with 0 initial workers. '
            "Use scale workers API to add workers for the model.",
        ),
        (202, 1, "Processing worker updates..."),
    ],
)
def test_register_answers_in_torchserves_words(status: int, workers: int, text: str) -> None:
    rules = Rules(models__register=(status, {"model": "m", "version": "1.0", "workers": workers}))

    async def scenario() -> None:
        async with serving(on_request=rules, enable_model_api=True) as s:
            target = "/models?url=m.mar&batch_size=4&max_batch_delay=50&initial_workers=1&synchronous=True&handler="
            assert await status_of(s, "POST", target + "&response_timeout=7&startup_timeout=8") == (status, text)

    asyncio.run(scenario())
    expected = {
        "url": "m.mar",
        "batch_size": 4,
        "max_batch_delay_ms": 50,
        "initial_workers": 1,
        "synchronous": True,
        "response_timeout_s": 7,
        "startup_timeout_s": 8,
    }
    assert rules.asked == [("models.register", expected)]


def test_names_travel_whole_through_every_route_of_management() -> None:
    def broker(verb: str, args: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        asked.append((verb, args.get("model", args.get("model_name")), args.get("version")))
        if verb == "models.describe":
            return 200, {"versions": [{**RECORD, "name": args["model"]}]}
        return 200, {"model": args.get("model_name"), "version": "1.0", "workers": 1}

    asked: list[tuple[str, Any, Any]] = []

    async def scenario() -> None:
        async with serving(on_request=broker, enable_model_api=True) as s:
            for name in REACHABLE:
                if name == "all":
                    continue  # as a version it means all of them
                asked.clear()
                one = quote(name, safe="")
                answer = await s.fetch("GET", f"/models/{one}/{one}", surface="management")
                assert answer.json()[0]["modelName"] == name
                assert (await s.fetch("GET", f"/models/{one}/all", surface="management")).status == 200
                assert (await s.fetch("OPTIONS", f"/models/{one}", surface="management")).status == 200
                assert (await s.fetch("GET", f"/v1/models/{one}", surface="management")).json()["name"] == name
                status, text = await status_of(s, "PUT", f"/models/{one}/{one}?synchronous=true")
                assert (status, text) == (200, f"Workers scaled to 1 for model: {name}, version: {name}")
                status, text = await status_of(s, "PUT", f"/models/{one}/{one}/set-default")
                assert (status, text) == (200, f'Default version successfully updated for model "{name}" to "{name}"')
                assert await status_of(s, "DELETE", f"/models/{one}/{one}") == (200, f'Model "{name}" unregistered')
                text = f'Model "{name}" Version: 1.0 registered with 1 initial workers'
                assert await status_of(s, "POST", f"/models?url=m.mar&model_name={one}") == (200, text)
                verbs = [
                    "describe",
                    "describe",
                    "describe",
                    "describe",
                    "scale",
                    "set_default",
                    "unregister",
                    "register",
                ]
                versions = [name, "all", "", "", name, name, name, None]
                assert asked == [
                    (f"models.{verb}", name, version) for verb, version in zip(verbs, versions, strict=True)
                ]

    asyncio.run(scenario())


def test_a_registration_that_fails_is_answered_with_its_cause_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = "https://h/m.mar"
    causes = {
        f"Failed to save model: {url}: it is a web page (HTML)": "the registration failed: ",
        "Model name is not defined.": f"the registration of {url} failed: ",
    }
    for cause, begin in causes.items():
        body = {"code": "bad_archive", "message": cause, "type": "InternalServerException"}
        rules = Rules(models__register=(500, body))

        async def scenario(rules: Rules = rules, cause: str = cause) -> None:
            async with serving(on_request=rules, enable_model_api=True) as s:
                assert await status_of(s, "POST", f"/models?url={url}") == (500, cause)

        caplog.clear()
        asyncio.run(scenario())
        lines = [record.getMessage() for record in caplog.records if cause in record.getMessage()]
        assert lines == [begin + cause]


def test_register_takes_a_json_body_and_refuses_a_bad_one() -> None:
    rules = Rules(models__register=(200, {"model": "m", "version": "1.0", "workers": 2}))
    kind = {"Content_Type": "application/json; charset=utf-8"}

    async def scenario() -> None:
        async with serving(on_request=rules, enable_model_api=True) as s:
            body = json.dumps({"url": "m.mar", "model_name": "n", "synchronous": False, "batch_size": 2}).encode()
            assert (await s.fetch("POST", "/models", body, surface="management", **kind)).status == 200
            for bad in (b"", b"{", b"[1]", b'{"url": 3}', b'{"url": "a", "batch_size": "x"}', b"\xff"):
                answer = await s.fetch("POST", "/models", bad, surface="management", **kind)
                assert (answer.status, answer.json()["type"]) == (400, "BadRequestException"), bad

    asyncio.run(scenario())
    assert rules.asked == [
        ("models.register", {"url": "m.mar", "model_name": "n", "synchronous": False, "batch_size": 2})
    ]


def test_register_refuses_what_cannot_be_meant() -> None:
    async def scenario() -> None:
        async with serving(on_request=Rules(), enable_model_api=True) as s:
            assert await status_of(s, "POST", "/models") == (400, "Parameter url is required.")
            assert await status_of(s, "POST", "/models?url=") == (404, "empty url")
            assert (await status_of(s, "POST", "/models?url=a&batch_size=0"))[0] == 400

    asyncio.run(scenario())


def test_model_control_switch_is_off_by_default() -> None:
    async def scenario() -> None:
        async with serving(on_request=Rules(models__list=(200, {"models": []}))) as s:
            for method, target in (("POST", "/models?url=a"), ("DELETE", "/models/m"), ("DELETE", "/models/m/1.0")):
                answer = await s.fetch(method, target, surface="management")
                assert (answer.status, answer.json()["type"]) == (405, "MethodNotAllowedException")
                assert answer.headers["allow"] == ("GET" if target.startswith("/models?") else "GET, OPTIONS, PUT")
            answer = await s.fetch("GET", "/models", surface="management")
            assert (answer.status, answer.json()) == (200, {"models": []})

    asyncio.run(scenario())


def test_broker_errors_become_torchserves() -> None:
    error = {"code": "conflict", "message": "Model version 1.0 is already registered for model m", "type": "X"}
    rules = Rules(models__register=(409, {**error, "type": "ConflictStatusException"}))

    async def scenario() -> None:
        async with serving(on_request=rules, enable_model_api=True) as s:
            answer = await s.fetch("POST", "/models?url=a", surface="management")
            assert answer.status == 409
            assert answer.json() == {"code": 409, "type": "ConflictStatusException", "message": error["message"]}

    asyncio.run(scenario())


def test_describe_asks_for_the_right_versions() -> None:
    rules = Rules(models__describe=(200, {"versions": [RECORD]}))

    async def scenario() -> None:
        async with serving(on_request=rules) as s:
            for tail in ("", "/1.11", "/all", "/"):
                answer = await s.fetch("GET", f"/models/noop{tail}", surface="management")
                assert answer.status == 200
                assert answer.json()[0]["jobQueueStatus"] == {"remainingCapacity": 97, "pendingRequests": 3}
            answer = await s.fetch("GET", "/v1/models/noop", surface="management")
            assert answer.json() == {"name": "noop", "ready": False}

    asyncio.run(scenario())
    assert [args["version"] for _, args in rules.asked] == ["", "1.11", "all", "", ""]


def test_list_pages() -> None:
    models = [{"name": f"m{n}", "version": "1.0", "url": f"m{n}.mar"} for n in range(3)]

    async def scenario() -> None:
        async with serving(on_request=Rules(models__list=(200, {"models": models}))) as s:

            async def names(query: str) -> tuple[list[str], str | None]:
                body = (await s.fetch("GET", "/models" + query, surface="management")).json()
                return [row["modelName"] for row in body["models"]], body.get("nextPageToken")

            assert await names("") == (["m0", "m1", "m2"], None)
            assert await names("?limit=2") == (["m0", "m1"], "2")
            assert await names("?limit=2&next_page_token=2") == (["m2"], None)
            assert await names("?limit=3") == (["m0", "m1", "m2"], None)
            assert await names("?limit=0") == (["m0", "m1", "m2"], None)
            assert await names("?next_page_token=99") == ([], None)
            assert await names("?next_page_token=-1") == (["m0", "m1", "m2"], None)
            assert await names("?limit=x&next_page_token=y") == (["m0", "m1", "m2"], None)

    asyncio.run(scenario())


def test_scale_in_all_its_forms() -> None:
    rules = Rules(models__scale=(200, {"workers": 2, "version": "1.11"}))

    async def scenario() -> None:
        async with serving(on_request=rules) as s:
            assert await status_of(s, "PUT", "/models/noop?min_worker=2&synchronous=true") == (
                200,
                "Workers scaled to 2 for model: noop",
            )
            assert await status_of(s, "PUT", "/models/noop/1.11?min_worker=2&max_worker=3&synchronous=true") == (
                200,
                "Workers scaled to 2 for model: noop, version: 1.11",
            )
            rules.replies["models.scale"] = (202, {})
            assert await status_of(s, "PUT", "/models/noop") == (202, "Processing worker updates...")
            rules.replies["models.scale"] = (206, {})
            assert await status_of(s, "PUT", "/models/noop?model_version=2") == (206, "Workers scaling in progress...")
            for query in ("min_worker=2&max_worker=1", "max_worker=-1"):
                assert await status_of(s, "PUT", f"/models/noop?{query}") == (
                    400,
                    "max_worker cannot be less than min_worker.",
                )
            assert (await status_of(s, "PUT", "/models/noop?min_worker=-1"))[0] == 400
            assert (await status_of(s, "PUT", "/models/noop?min_worker=1.5"))[0] == 206  # no integer: the default

    asyncio.run(scenario())
    assert [tuple(args.values()) for _, args in rules.asked] == [
        ("noop", "", 2, 2, True),
        ("noop", "1.11", 2, 3, True),
        ("noop", "", 1, 1, False),
        ("noop", "2", 1, 1, False),
        ("noop", "", 1, 1, False),
    ]


def test_set_default_and_unregister() -> None:
    rules = Rules(models__set_default=(200, {}), models__unregister=(200, {}))

    async def scenario() -> None:
        async with serving(on_request=rules, enable_model_api=True) as s:
            assert await status_of(s, "PUT", "/models/noop/1.2.1/set-default") == (
                200,
                'Default version successfully updated for model "noop" to "1.2.1"',
            )
            assert await status_of(s, "DELETE", "/models/noop/1.11") == (200, 'Model "noop" unregistered')
            rules.replies["models.set_default"] = (404, {"code": "version_not_found", "message": "x", "type": "y"})
            answer = await s.fetch("PUT", "/models/noop/3.3/set-default", surface="management")
            assert answer.json() == {
                "code": 404,
                "type": "ModelVersionNotFoundException",
                "message": "Model version 3.3 does not exist for model noop",
            }

    asyncio.run(scenario())


def test_routes_that_do_not_exist() -> None:
    async def scenario() -> None:
        async with serving(on_request=Rules(models__describe=(200, {"versions": [RECORD]}))) as s:
            for method, target, status in (
                ("GET", "/ping", 404),
                ("GET", "/token?type=inference", 404),
                ("HEAD", "/models/m", 405),
                ("GET", "/zzz", 404),
                ("GET", "/models/a/b/c", 404),
                ("GET", "/", 405),
                ("PATCH", "/models", 405),
                ("POST", "/models/m", 405),
                ("GET", "/models/m/1/set-default", 405),
                ("POST", "/v1/models/m", 405),
                ("OPTIONS", "/", 200),
                ("OPTIONS", "/models/m", 200),
            ):
                answer = await s.fetch(method, target, surface="management")
                assert answer.status == status, target
            document = (await s.fetch("OPTIONS", "/models/m", surface="management")).json()
            assert "put" in document["paths"]["/models/{model_name}/{model_version}/set-default"]

    asyncio.run(scenario())


def test_equal_addresses_share_a_server_and_all_routes_work() -> None:
    rules = Rules(
        models__describe=(200, {"versions": [RECORD]}),
        health=(200, {"healthy": True, "ready": True, "models": {"noop": {"ready_workers": 1}}}),
        stats=(200, {"models": [], "workers": [], "counters": {}, "http": {}}),
    )

    async def scenario() -> None:
        address = f"http://127.0.0.1:{free_port()}"
        shared: dict[str, Any] = {f"{name}_address": address for name in ("inference", "management", "metrics")}
        async with serving(on_request=rules, **shared) as s:
            assert len(set(s.service.addresses.values())) == 1
            assert (await s.fetch("POST", "/predictions/m", b"x")).body == b"x"
            assert (await s.fetch("GET", "/models/noop/1.11")).json()[0]["modelName"] == "noop"
            assert (await s.fetch("GET", "/models/noop/ready")).json() == {"status": "Ready"}
            assert (await s.fetch("GET", "/metrics")).status == 200
            assert (await s.fetch("GET", "/ping")).status == 200
            paths = (await s.fetch("OPTIONS", "/")).json()["paths"]
            assert {"/models", "/metrics", "/predictions/{model_name}"} <= set(paths)

    asyncio.run(scenario())


def test_without_a_broker_management_says_so() -> None:
    async def scenario() -> None:
        async with serving(broker=False) as s:
            asking = asyncio.create_task(s.fetch("GET", "/models", surface="management"))
            answer = await asyncio.wait_for(asking, 20)
            assert (answer.status, answer.json()["type"]) == (503, "ServiceUnavailableException")
            assert answer.json()["message"].startswith("No broker at ipc://")

    asyncio.run(scenario())
