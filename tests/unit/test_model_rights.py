"""Who may say as which user a model runs and with how much memory, and how both are written."""

from __future__ import annotations

import os

import pytest

from zts.accounts import model_user_ids
from zts.config.keys import convert
from zts.errors import BadRequest, ConfigError
from zts.model_rights import LEAST_MEMORY_BYTES, allowed_memory, allowed_user, parse_size, parse_user

G = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4g", 4 * G),
        ("4G", 4 * G),
        ("4 GiB", 4 * G),
        ("4gb", 4 * G),
        ("0.5g", G // 2),
        ("512m", G // 2),
        ("1048576k", G),
        ("1t", 1024 * G),
        (4 * G, 4 * G),
        (str(4 * G), 4 * G),
        (f"{4 * G}b", 4 * G),
        (LEAST_MEMORY_BYTES, LEAST_MEMORY_BYTES),
        (LEAST_MEMORY_BYTES - 1, None),
        ("", None),
        ("g", None),
        ("-4g", None),
        ("4x", None),
        ("4g 4g", None),
        ("1e9", None),
        ("٤g", None),
        ("9" * 30, None),
        ("9999999999999t", None),
        (4.5, None),
        (True, None),
        (None, None),
        (["4g"], None),
    ],
)
def test_a_size_is_a_number_with_a_unit_of_1024s(text: object, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "user"),
    [
        ("alice", "alice"),
        (" alice ", "alice"),
        ("alice:video", "alice:video"),
        ("1000:100", "1000:100"),
        (1000, "1000"),
        ("svc-1.a$", "svc-1.a$"),
        ("", None),
        (":video", None),
        ("alice:", None),
        ("a:b:c", None),
        ("-u", None),
        ("-1", None),
        (-1, None),
        ("a b", None),
        ("a\nb", None),
        ("a/b", None),
        ("álice", None),
        (True, None),
        ({"name": "alice"}, None),
    ],
)
def test_a_user_is_a_name_or_number_and_perhaps_a_group(value: object, user: str | None) -> None:
    assert parse_user(value) == user


@pytest.mark.parametrize(
    ("archive", "operator", "default", "listed", "user"),
    [
        (None, None, "", (), ""),
        (None, None, "web", (), "web"),
        (None, "alice", "web", (), "alice"),
        ("bob", None, "web", ("alice", "bob"), "bob"),
        ("bob", "alice", "web", ("bob",), "alice"),
        ("root", "alice", "", (), "alice"),  # the operator has said who it is; nobody asks the archive
        ("web", None, "web", (), "web"),
        ("bob", None, "web", (), None),
        ("bob", None, "", ("alice",), None),
        ("root", None, "", ("alice",), None),
        ("0", None, "", ("root",), None),
        ("alice:root", None, "", ("alice",), None),
        ("no such\nname", None, "", (), None),
        ("", None, "web", (), "web"),
    ],
)
def test_an_archive_may_choose_only_among_the_users_that_the_operator_lists(
    archive: str | None, operator: str | None, default: str, listed: tuple[str, ...], user: str | None
) -> None:
    if user is None:
        with pytest.raises(BadRequest, match="zts_model_users") as refused:
            allowed_user(archive=archive, operator=operator, default=default, listed=listed)
        assert "\n" not in refused.value.public_message
    else:
        assert allowed_user(archive=archive, operator=operator, default=default, listed=listed) == user


@pytest.mark.parametrize(
    ("archive", "operator", "default", "limit"),
    [
        (None, None, 0, 0),
        (None, None, 4 * G, 4 * G),
        (None, 8 * G, 4 * G, 8 * G),
        (2 * G, None, 4 * G, 2 * G),
        (8 * G, None, 4 * G, 4 * G),
        (8 * G, 6 * G, 4 * G, 6 * G),
        (2 * G, None, 0, 2 * G),
    ],
)
def test_an_archive_can_only_lower_the_limit(
    archive: int | None, operator: int | None, default: int, limit: int
) -> None:
    assert allowed_memory(archive=archive, operator=operator, default=default) == limit


def test_all_users_that_models_can_have_are_known_at_the_start() -> None:
    models = {
        "m": {"1": {"user": "65003:1"}, "2": {"minWorkers": 1}, "3": {"user": "65003:2"}, "4": {"user": "a b"}, "5": 1},
        "n": 1,
    }
    assert model_user_ids("65002:1", ("65001:1", f"{os.geteuid()}:1"), models) == (65001, 65002, 65003)
    assert model_user_ids("", (), {}) == ()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("user", "", ""),
        ("user", "1000:100", "1000:100"),
        ("users", "alice, bob:video", ("alice", "bob:video")),
        ("size", "", 0),
        ("size", "0", 0),
        ("size", "4g", 4 * G),
        ("worker_environment", "", ()),
        ("worker_environment", "all", ("all",)),
        ("worker_environment", "minimal", ("minimal",)),
        ("worker_environment", "minimal, HF_*,BUCKET", ("minimal", "HF_*", "BUCKET")),
    ],
)
def test_configuration_keys_take_these(kind: str, text: str, value: object) -> None:
    assert convert("key", text, kind) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("user", "a b"),
        ("users", "alice, a b"),
        ("size", "lots"),
        ("size", "1m"),
        ("worker_environment", "HF_*"),
        ("worker_environment", "all,minimal"),
        ("worker_environment", "all,HF_*"),
        ("worker_environment", "some"),
    ],
)
def test_and_refuse_these(kind: str, text: str) -> None:
    with pytest.raises(ConfigError, match="key="):
        convert("key", text, kind)
