from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http_service import Response, Serving, serving
from tests.ports import free_port
from zts.errors import ClientError, ConfigError
from zts.http import auth
from zts.http.auth import API, INFERENCE, KEY_FILE, MANAGEMENT, KeyFile, TokenGuard, remove_key_file
from zts.settings import Endpoints, Settings

REFUSED = {
    "code": 400,
    "type": "InvalidKeyException",
    "message": "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
}
NOT_RENEWED = {
    **REFUSED,
    "message": "Token Authentication failed. Token either incorrect, expired, or not provided correctly",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replies(verb: str, args: Any) -> tuple[int, Any]:
    return 200, {"healthy": True, "models": [], "versions": [], "workers": [], "counters": {}, "http": {}}


def keys() -> dict[str, str]:
    raw = json.loads(Path(KEY_FILE).read_text())
    return {name: row["key"] for name, row in raw.items()}


async def fetch(s: Serving, surface: str, target: str, authorization: str = "", method: str = "GET") -> Response:
    headers = {"Authorization": authorization} if authorization else {}
    return await s.fetch(method, target, surface=surface, **headers)


def test_key_file_has_torchserves_form_and_only_its_owner_reads_it(folder: Path) -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, on_request=replies):
            raw = json.loads((folder / KEY_FILE).read_text())
            assert list(raw) == ["management", "inference", "API"]
            assert all(len(row["key"]) == 32 for row in raw.values())
            assert raw["management"]["expiration time"].endswith("Z")
            assert "expiration time" not in raw["API"]
            assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600

    asyncio.run(scenario())


def test_each_port_wants_its_own_key_and_metrics_none() -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, on_request=replies) as s:
            key = keys()
            for surface, target, name, other in (
                ("inference", "/ping", "inference", "management"),
                ("inference", "/predictions/m", "inference", "API"),
                ("inference", "/explanations/m", "inference", "API"),
                ("inference", "/v2/models/m/infer", "inference", "management"),
                ("management", "/models", "management", "inference"),
            ):
                for bad in ("", f"Bearer {key[other]}", f"bearer {key[name]}", f"Bearer {key[name]} x", key[name]):
                    refused = await fetch(s, surface, target, bad)
                    assert (refused.status, refused.json()) == (400, REFUSED), (target, bad)
                assert (await fetch(s, surface, target, f"Bearer \t {key[name]}")).status == 200, target
            assert (await fetch(s, "metrics", "/metrics")).status == 200
            for surface in ("inference", "management"):
                assert (await fetch(s, surface, "/api-description")).status == 200
                assert (await fetch(s, surface, "/", method="OPTIONS")).status == 200
                # What is there and what is not stays hidden from who has no key.
                assert (await fetch(s, surface, "/zzz")).json() == REFUSED
                assert (await fetch(s, surface, "/")).json() == REFUSED
            assert len(s.broker.jobs) == 3

    asyncio.run(scenario())


def test_renewal_needs_the_api_key_and_changes_one_key() -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, on_request=replies) as s:
            before = keys()
            api = f"Bearer {before['API']}"
            for target, authorization in (
                ("/token?type=inference", ""),
                ("/token?type=inference", f"Bearer {before['management']}"),
                ("/token", api),
                ("/token?type=API", api),
            ):
                refused = await fetch(s, "management", target, authorization)
                assert (refused.status, refused.json()) == (400, NOT_RENEWED), target
            assert keys() == before
            for method in ("GET", "POST", "PATCH"):
                answer = await fetch(s, "management", "/token?type=inference", api, method)
                assert (answer.status, answer.body) == (200, b"\n")
            after = keys()
            assert after["inference"] != before["inference"]
            assert {**after, "inference": ""} == {**before, "inference": ""}
            assert (await fetch(s, "inference", "/ping", f"Bearer {before['inference']}")).json() == REFUSED
            assert (await fetch(s, "inference", "/ping", f"Bearer {after['inference']}")).status == 200

    asyncio.run(scenario())


def test_a_model_whose_name_begins_with_token_is_no_token_call() -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, on_request=replies) as s:
            answer = await fetch(s, "management", "/models/tokenizer", f"Bearer {keys()['management']}")
            assert answer.status == 200
            assert (await fetch(s, "management", "/models/token", f"Bearer {keys()['API']}")).json() == REFUSED

    asyncio.run(scenario())


def test_expired_keys_are_refused() -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, token_expiration_min=0, on_request=replies) as s:
            assert (await fetch(s, "inference", "/ping", f"Bearer {keys()['inference']}")).json() == REFUSED

    asyncio.run(scenario())


def test_failures_can_be_401() -> None:
    async def scenario() -> None:
        async with serving(token_auth=True, auth_failure_status=401, on_request=replies) as s:
            refused = await fetch(s, "inference", "/ping")
            assert (refused.status, refused.json()) == (401, {**REFUSED, "code": 401})
            assert refused.headers["www-authenticate"] == "Bearer"

    asyncio.run(scenario())


def test_one_address_takes_each_key_for_its_own_calls() -> None:
    async def scenario() -> None:
        address = f"http://127.0.0.1:{free_port()}"
        shared: dict[str, Any] = {"inference_address": address, "management_address": address}
        async with serving(token_auth=True, on_request=replies, **shared) as s:
            key = keys()
            inference, management = f"Bearer {key['inference']}", f"Bearer {key['management']}"
            assert (await fetch(s, "inference", "/ping", inference)).status == 200
            assert (await fetch(s, "inference", "/ping", management)).json() == REFUSED
            assert (await fetch(s, "inference", "/models", management)).status == 200
            assert (await fetch(s, "inference", "/models", inference)).json() == REFUSED
            assert (await fetch(s, "inference", "/zzz", inference)).status == 404
            assert (await fetch(s, "inference", "/zzz")).json() == REFUSED

    asyncio.run(scenario())


def settings_in(folder: Path, **values: Any) -> Settings:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    return Settings(runtime_dir=str(run), endpoints=Endpoints.in_folder(str(run)), token_auth=True, **values)


def test_restarted_process_keeps_the_keys_and_a_new_instance_makes_new_ones(folder: Path) -> None:
    settings = settings_in(folder)
    started = folder / "run" / "settings.json"
    started.write_text("{}")
    TokenGuard.of_instance(settings, 0)
    first = keys()
    TokenGuard.of_instance(settings, 0)
    assert keys() == first
    os.utime(started, (1, 1))
    TokenGuard.of_instance(settings, 0)
    assert keys() != first


def test_other_processes_see_keys_that_were_renewed(folder: Path) -> None:
    settings = settings_in(folder)
    first = TokenGuard.of_instance(settings, 0)
    second = TokenGuard.of_instance(settings, 1)
    assert first is not None and second is not None
    old = keys()
    second.check(INFERENCE, f"Bearer {old['inference']}")
    second.renew(INFERENCE, f"Bearer {old['API']}")
    first.renew(MANAGEMENT, f"Bearer {old['API']}")
    new = keys()
    assert new["inference"] != old["inference"]
    assert new["management"] != old["management"]
    for guard in (first, second):
        guard.check(INFERENCE, f"Bearer {new['inference']}")
        guard.check(MANAGEMENT, f"Bearer {new['management']}")


def test_without_its_file_nobody_comes_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = TokenGuard.of_instance(settings_in(folder), 0)
    assert guard is not None
    key = f"Bearer {keys()[INFERENCE]}"
    for text in (None, "{}", "no json"):
        if text is None:
            (folder / KEY_FILE).unlink()
        else:
            (folder / KEY_FILE).write_text(text)
        with pytest.raises(ClientError):
            guard.check(INFERENCE, "Bearer wrong")  # makes it look at once
        with pytest.raises(ClientError):
            guard.check(INFERENCE, key)


def test_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--disable-token-auth"):
        KeyFile(folder / "missing" / KEY_FILE, 60).create()


def test_torchserves_own_file_can_be_read(folder: Path) -> None:
    text = '{"management": {"key": "a", "expiration time": "2026-11-22T10:35:38.593012345Z"}, '
    text += '"inference": {"key": "b", "expiration time": "2026-11-22T10:35:38Z"}, "API": {"key": "c"}}'
    (folder / KEY_FILE).write_text(text)
    found = KeyFile(folder / KEY_FILE, 60).read()
    assert found[API].expires_at is None
    assert found[MANAGEMENT].expires_at == pytest.approx(1795343738.593, abs=0.001)


def test_stopping_removes_the_file_of_the_instance(folder: Path) -> None:
    assert not remove_key_file(folder / "run")
    TokenGuard.of_instance(settings_in(folder), 0)
    assert remove_key_file(folder / "run")
    assert not (folder / KEY_FILE).exists()
    assert not remove_key_file(folder / "run")


def test_a_renewal_waits_for_no_lock_that_other_programs_can_take(folder: Path) -> None:
    guard = TokenGuard.of_instance(settings_in(folder), 0)
    assert guard is not None
    old = keys()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        guard.renew(INFERENCE, f"Bearer {old['API']}")
    finally:
        os.close(descriptor)
    assert keys()["inference"] != old["inference"]


def test_a_renewal_that_hangs_holds_up_no_other_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(TokenGuard, "renew", lambda *_: release.wait(60))

    async def scenario() -> None:
        async with serving(token_auth=True) as s:
            headers = {"Authorization": f"Bearer {keys()['API']}"}
            waiting = asyncio.create_task(s.fetch("GET", "/token?type=inference", surface="management", **headers))
            right = {"Authorization": f"Bearer {keys()['inference']}"}
            for _ in range(3):
                assert (await s.fetch("POST", "/predictions/m", b"x", **right)).body == b"x"
            assert not waiting.done()
            release.set()
            assert (await waiting).status == 200

    asyncio.run(scenario())


def test_a_lock_that_is_held_for_ever_ends_a_renewal_with_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = TokenGuard.of_instance(settings_in(folder), 0)
    assert guard is not None
    monkeypatch.setattr(auth, "_LOCK_S", 0.05)
    old = keys()
    with open(folder / "run" / "tokens.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another renewal does not end"):
            guard.renew(INFERENCE, f"Bearer {old['API']}")
    assert keys() == old


def test_keys_cannot_be_guessed(folder: Path) -> None:
    TokenGuard.of_instance(settings_in(folder), 0)
    made = keys()
    assert {len(text) for text in made.values()} == {32}
    assert len(set(made.values())) == 3


def test_wrong_keys_are_answered_ever_later_and_right_ones_at_once(folder: Path) -> None:
    async def scenario() -> None:
        async with serving(token_auth=True) as s:
            delays: list[float] = []
            loop = asyncio.get_running_loop()
            ask = loop.call_later

            def call_later(delay_s: float, call: Any, *args: Any, **more: Any) -> Any:
                if getattr(call, "__name__", "") == "answer":
                    delays.append(delay_s)
                    delay_s = 0.0
                return ask(delay_s, call, *args, **more)

            loop.call_later = call_later  # type: ignore[method-assign]
            for _ in range(8):
                answer = await s.fetch("POST", "/predictions/m", b"x", Authorization="Bearer wrong")
                assert (answer.status, answer.json()["type"]) == (400, "InvalidKeyException")
            answer = await s.fetch("GET", "/models", surface="management", Authorization="Bearer wrong")
            assert answer.status == 400
            assert delays == [0.05, 0.1, 0.2, 0.4]
            right = {"Authorization": f"Bearer {keys()['inference']}"}
            assert (await s.fetch("POST", "/predictions/m", b"x", **right)).body == b"x"
            assert len(delays) == 4

    asyncio.run(scenario())


def test_stopping_removes_no_file_that_a_stranger_names(folder: Path) -> None:
    settings = settings_in(folder)
    TokenGuard.of_instance(settings, 0)
    mark = folder / "run" / "key_file_of.json"
    precious = folder / "precious.txt"
    precious.write_text("x")
    mark.write_text(json.dumps({"path": str(precious), "instance": 0}))
    remove_key_file(folder / "run")
    assert precious.exists()
    link = folder / "elsewhere" / KEY_FILE
    link.parent.mkdir()
    link.symlink_to(precious)
    mark.write_text(json.dumps({"path": str(link), "instance": 0}))
    remove_key_file(folder / "run")
    assert link.is_symlink() and precious.exists()
