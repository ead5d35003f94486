"""Properties, the key table, precedence, and clear refusals."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from zts.cli.main import Parser, main
from zts.config import add_server_arguments, check_ipc_path, load_settings
from zts.config_keys import convert, nearest_key
from zts.errors import ConfigError
from zts.properties import fill_variables, parse_properties
from zts.settings import Endpoints, Settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parse(*flags: str) -> argparse.Namespace:
    parser = Parser(prog="zts start", allow_abbrev=False)
    add_server_arguments(parser)
    return parser.parse_strictly(flags)


def test_properties_know_comments_separators_continuations_and_escapes() -> None:
    text = "# c\n! c\na=1\nb : 2\nc 3\nlong=x,\\\n   y\\\n  z\nu=\\u00e9\\:\npath=C:\\\\t\nempty=\na=4\n"
    assert {key: value for key, (value, _) in parse_properties(text).items()} == {
        "a": "4",
        "b": "2",
        "c": "3",
        "long": "x,yz",
        "u": "é:",
        "path": "C:\\t",
        "empty": "",
    }


def test_variables_in_values_come_from_the_environment_or_are_refused() -> None:
    assert fill_variables("a-$$X$$-b", {"X": "1"}) == "a-1-b"
    with pytest.raises(ConfigError, match="Invalid configuration: Invalid Environment Variable NOPE"):
        fill_variables("$$NOPE$$", {})


def test_the_order_is_ts_variables_then_flags_then_zts_variables_then_file(tmp_path: Path) -> None:
    file = tmp_path / "c.properties"
    file.write_text("job_queue_size=1\nmax_request_size=10\nzts_http_processes=2\ndecode_input_request=false\n")
    environ = {"ZTS_HTTP_PROCESSES": "3", "ZTS_LOG_LEVEL": "debug", "TS_JOB_QUEUE_SIZE": "9", "ZTS_RUNTIME_DIR": "/r"}
    settings, _ = load_settings(parse("--ts-config", str(file), "--http-processes", "4"), environ)
    assert (settings.job_queue_size, settings.max_request_bytes, settings.http_processes) == (1, 10, 4)
    assert (settings.log_level, settings.decode_input_request, settings.runtime_dir) == ("debug", False, "/r")
    file.write_text("job_queue_size=1\nenable_envvars_config=true\n")
    settings, _ = load_settings(parse("--ts-config", str(file)), environ)
    assert settings.job_queue_size == 9


def test_the_file_of_the_environment_wins_and_a_local_one_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=5\n")
    assert load_settings(parse(), {})[0].job_queue_size == 5
    (tmp_path / "other").write_text("job_queue_size=6\n")
    settings, _ = load_settings(parse("--ts-config", "nowhere"), {"TS_CONFIG_FILE": str(tmp_path / "other")})
    assert settings.job_queue_size == 6


def test_unknown_java_and_later_keys_give_one_warning_each_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_sise=5\nvmargs=-Xmx1g\nkeystore=a.p12\nxyzzy=1\n")
    warnings = load_settings(parse(), {})[1]
    assert len(warnings) == 4
    assert "line 1: job_queue_sise is no known key and ignored; did you mean job_queue_size?" in warnings[0]
    assert "JVM" in warnings[1]
    assert "does not act on it yet" in warnings[2]
    assert "did you mean" not in warnings[3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model-store", "/no/such"), "--model-store directory not found: /no/such"),
        (("--ts-config", "nofile"), "--ts-config file not found: nofile"),
        (("--log-config", "nofile"), "--log-config file not found: nofile"),
        (("--http-processes", "two"), "whole number"),
        (("--http-processes", "0"), "at least 1"),
        (("--heartbeat-s", "0"), "above 0"),
        (("--drain-timeout-s", "-1"), "from 0 up"),
        (("--client-address", "http://x"), "ipc:///path or tcp://host:port"),
        (("--inference-address", "8080"), "http://host:port"),
        (("--runtime-dir", "/tmp/" + "x" * 120), "at most 107"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(parse(*flags), {})
    assert "\n" not in caught.value.public_message


def test_values_of_every_kind() -> None:
    assert convert("k", " a , b,", "list") == ("a", "b")
    assert convert("k", "TRUE", "bool") is True
    assert convert("k", '{"m": {}}', "json") == {"m": {}}
    for text, kind in (("yes", "bool"), ("[1]", "json"), ("{", "json"), ("x", "seconds")):
        with pytest.raises(ConfigError, match=r"^k"):
            convert("k", text, kind)
    assert nearest_key("inference_adress") == "inference_address"


def test_an_ipc_path_that_just_fits_is_taken() -> None:
    assert check_ipc_path("ipc://" + "a" * 107)
    with pytest.raises(ConfigError, match="108 bytes"):
        check_ipc_path("ipc://" + "a" * 108)


def test_settings_survive_their_file_and_refuse_foreign_ones() -> None:
    settings = Settings(runtime_dir="/r", endpoints=Endpoints.in_folder("/r"), load_models=("a.mar",), models={"a": {}})
    assert Settings.from_map(settings.to_map()) == settings
    with pytest.raises(ConfigError):
        Settings.from_map({"endpoints": {}})
    with pytest.raises(ConfigError):
        Settings.from_map({**settings.to_map(), "news": 1})


def test_an_unknown_flag_or_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--modle-store", "x")
    assert caught.value.code == 2
    assert "unknown argument '--modle-store'; did you mean --model-store?" in capsys.readouterr().err
    assert main(["strat"]) == 2
    assert "did you mean 'start'?" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
