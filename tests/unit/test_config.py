"""Properties, the key table, precedence, and clear refusals."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import pytest

from zts.cli.config import explained
from zts.cli.main import Parser, main
from zts.config.keys import JAVA, KEYS, LATER, META, convert, nearest_key
from zts.config.properties import fill_variables, parse_properties
from zts.config.resolve import add_server_arguments, check_ipc_path, load_settings, resolve
from zts.errors import ConfigError
from zts.settings import Endpoints, Settings

ENV = "enable_envvars_config=true\n"
# TORCHSERVE.md 5.2, whole.
TORCHSERVE_KEYS = """
inference_address management_address metrics_address grpc_inference_address grpc_management_address
grpc_inference_port grpc_management_port grpc_inference_max_connection_age_ms grpc_management_max_connection_age_ms
grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_grace_ms enable_grpc_ssl model_store
workflow_store load_models models model_snapshot default_workers_per_model default_response_timeout
default_startup_timeout unregister_model_timeout job_queue_size number_of_gpu initial_worker_port
initial_distribution_port max_request_size max_response_size limit_max_image_pixels decode_input_request
default_service_handler service_envelope install_py_dep_per_model allowed_urls use_env_allowed_urls enable_model_api
disable_token_authorization token_expiration_min enable_metrics_api metrics_config metrics_mode
model_metrics_auto_detect disable_system_metrics system_metrics_cmd metric_time_interval cors_allowed_origin
cors_allowed_methods cors_allowed_headers private_key_file certificate_file keystore keystore_pass keystore_type
ts_open_inference_protocol ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end
blacklist_env_vars async_logging cpu_launcher_enable cpu_launcher_args ipex_enable ipex_gpu_enable cpp_log_config
number_of_netty_threads netty_client_threads prefer_direct_buffer use_native_io io_ratio model_server_home debug
enable_envvars_config vmargs plugins_path version tsConfigFile python
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parse(*flags: str) -> argparse.Namespace:
    parser = Parser(prog="zts start", allow_abbrev=False)
    add_server_arguments(parser)
    return parser.parse_strictly(flags)


def test_where_the_broker_is_comes_from_file_variable_or_flag() -> None:
    Path("c.properties").write_text("zts_broker=Embedded\n")
    in_file, _ = load_settings(parse("--ts-config", "c.properties"), {})
    by_variable, _ = load_settings(parse(), {"ZTS_BROKER": "embedded"})
    by_flag, _ = load_settings(parse("--broker", "separate"), {"ZTS_BROKER": "embedded"})
    default, _ = load_settings(parse(), {})
    found = (in_file.broker, by_variable.broker, by_flag.broker, default.broker)
    assert found == ("embedded", "embedded", "separate", "separate")


def test_the_broker_is_separate_or_embedded_and_embedded_is_for_one_http_server() -> None:
    with pytest.raises(ConfigError, match="zts_broker=inside: separate or embedded is needed"):
        load_settings(parse("--broker", "inside"), {})
    with pytest.raises(ConfigError, match="for one HTTP server, and zts_http_processes is 2"):
        load_settings(parse("--broker", "embedded", "--http-processes", "2"), {})
    load_settings(parse("--broker", "embedded", "--http-processes", "1"), {})


def test_the_number_of_http_servers_goes_by_the_cores_unless_somebody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*flags: str) -> int:
        return load_settings(parse(*flags), {}, is_start=True)[0].http_processes

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert (found(), found("--http-processes", "1"), found("--broker", "embedded")) == (3, 1, 1)
    assert found("--inference-address", "http://127.0.0.1:0") == 1
    assert found("--metrics-address", "unix:/tmp/m.sock") == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert found() == 1


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
    file.write_text("job_queue_size=1\n" + ENV)
    settings, _ = load_settings(parse("--ts-config", str(file)), environ)
    assert settings.job_queue_size == 9


def test_the_file_of_the_environment_wins_and_a_local_one_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=5\n")
    assert load_settings(parse(), {})[0].job_queue_size == 5
    (tmp_path / "other").write_text("job_queue_size=6\n")
    settings, _ = load_settings(parse("--ts-config", "nowhere"), {"TS_CONFIG_FILE": str(tmp_path / "other")})
    assert settings.job_queue_size == 6


def test_unknown_java_and_later_keys_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_sise=5\nvmargs=-Xmx1g\ndebug=true\nxyzzy=1\nio_ratio=5\n")
    assert load_settings(parse(), {})[1] == [
        "config.properties: for TorchServe's JVM only, which zts has not: vmargs (line 2), io_ratio (line 5)",
        "config.properties: known, but zts does not act on it yet: start a worker of your own with 'zts worker' and "
        "attach the debugger to it: debug (line 3)",
        "config.properties: no known key and ignored: job_queue_sise (line 1); did you mean job_queue_size?",
        "config.properties: no known key and ignored: xyzzy (line 4)",
    ]


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
    for text, kind in (("yes", "strict_bool"), ("[1]", "json"), ("{", "json"), ("x", "seconds")):
        with pytest.raises(ConfigError, match=r"^k"):
            convert("k", text, kind)
    assert nearest_key("inference_adress") == "inference_address"


def test_words_that_torchserve_reads_in_its_own_way_are_taken_so_with_a_warning() -> None:
    heard: list[str] = []
    taken = [
        convert("k", text, kind, heard.append)
        for text, kind in (("yes", "bool"), ("1", "not_bool"), ("soon", "minutes"), ("x", "metrics_mode"), ("x", "oip"))
    ]
    assert taken == [False, True, 60.0, "log", False]
    assert len(heard) == 5
    assert [convert("k", "oip", "oip"), convert("k", "LEGACY", "metrics_mode")] == [True, "legacy"]


@pytest.mark.parametrize(
    ("file", "environ", "flags", "field", "value"),
    [
        (
            "disable_token_authorization=true\n" + ENV,
            {"TS_DISABLE_TOKEN_AUTHORIZATION": "false"},
            ("--dt",),
            "token_auth",
            True,
        ),
        ("disable_token_authorization=true\n", {"TS_DISABLE_TOKEN_AUTHORIZATION": "false"}, (), "token_auth", False),
        ("token_expiration_min=5\n", {}, (), "token_auth", True),
        ("token_expiration_min=5\n", {"TS_TOKEN_EXPIRATION_TIME_MIN": "7"}, (), "token_expiration_min", 5.0),
        (ENV, {"TS_TOKEN_EXPIRATION_TIME_MIN": "0.5"}, (), "token_expiration_min", 0.5),
        (ENV, {"TS_TOKEN_EXPIRATION_MIN": "0.5"}, (), "token_expiration_min", 60.0),
        ("ts_open_inference_protocol=oip\n", {}, (), "open_inference_protocol", True),
        ("", {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}, (), "open_inference_protocol", True),
        (ENV, {"TS_HEADER_KEY_SEQUENCE_ID": "sid"}, (), "header_key_sequence_id", "sid"),
        (ENV, {"TS_ALLOWED_URLS": "a"}, (), "allowed_urls", ("file://.*", "http(s)?://.*")),
        (ENV + "use_env_allowed_urls=true\n", {"TS_ALLOWED_URLS": "a,b"}, (), "allowed_urls", ("a", "b")),
        (ENV + "load_models=a.mar\n", {"TS_LOAD_MODELS": "c.mar"}, ("--models", "b.mar"), "load_models", ("c.mar",)),
        ("load_models= a.mar, n=b.mar ,\n", {}, (), "load_models", ("a.mar", "n=b.mar")),
        ("inference_address=https://h\n", {}, (), "inference_address", "https://h:443"),
        ("management_address=http://h\n", {}, (), "management_address", "http://h:8081"),
        ("metrics_address=https://[::1]\n", {}, (), "metrics_address", "https://[::1]:8445"),
        ('models={\\n "m"\\: {}}\n', {}, (), "models", {"m": {}}),
        ("job_queue_size=$$SIZE$$\n", {"SIZE": "7"}, (), "job_queue_size", 7),
    ],
)
def test_who_wins_is_torchserves(
    tmp_path: Path, file: str, environ: dict[str, str], flags: tuple[str, ...], field: str, value: object
) -> None:
    (tmp_path / "config.properties").write_text(file)
    assert getattr(load_settings(parse(*flags), environ, is_start=True)[0], field) == value


def test_each_value_knows_its_place_and_what_it_hides(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("# c\njob_queue_size=5\nkeystore_pass=geheim\n")
    resolved = resolve(parse("--log-level", "debug"), {"ZTS_JOB_QUEUE_SIZE": "6"}, is_start=True)
    rows = {row["key"]: row for row in explained(resolved)}
    assert rows["job_queue_size"] == {
        "key": "job_queue_size",
        "value": 6,
        "source": "env",
        "where": "env ZTS_JOB_QUEUE_SIZE",
        "line": None,
        "overrides": ["config.properties:2"],
    }
    assert (rows["zts_log_level"]["where"], rows["model_store"]["where"]) == ("flag --log-level", "default")
    assert (rows["keystore_pass"]["value"], rows["keystore_pass"]["line"]) == ("(not shown)", 3)
    assert set(rows) == set(KEYS)


def test_config_explain_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=5\nio_ratio=50\n")
    assert main(["config", "explain", "--ncs", "--set-only"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["configuration file: config.properties", "job_queue_size  5  config.properties:1"]
    assert "JVM only, which zts has not: io_ratio (line 2)" in err
    assert main(["config", "explain", "--ncs", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config_file"] == "config.properties"
    assert len(told["warnings"]) == 1


def test_every_key_of_the_reference_is_known() -> None:
    for key in TORCHSERVE_KEYS.split():
        assert key in KEYS or key in LATER or key in JAVA or key in META, key
    fields = Settings.__dataclass_fields__
    assert all(row.setting.startswith("endpoints.") or row.setting in fields for row in KEYS.values())


def test_the_newest_snapshot_wins_over_the_local_file_unless_it_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=5\n")
    folder = tmp_path / "logs" / "config"
    folder.mkdir(parents=True)
    (folder / "20261122094841342-startup.cfg").write_text("job_queue_size=6\n")
    (folder / "20261122094841343-shutdown.cfg").write_text("job_queue_size=7\n")
    (folder / "zzz.cfg").write_text("job_queue_size=8\n")
    settings, warnings = load_settings(parse("--models", "a.mar"), {}, is_start=True)
    assert settings.job_queue_size == 7
    assert "./config.properties and --models are not used; start with --ncs" in warnings[0]
    assert load_settings(parse("--ncs"), {}, is_start=True)[0].job_queue_size == 5
    assert load_settings(parse("--log-dir", ""), {}, is_start=True)[0].job_queue_size == 5
    assert load_settings(parse(), {"LOG_LOCATION": "elsewhere"}, is_start=True)[0].job_queue_size == 5
    assert load_settings(parse(), {})[0].job_queue_size == 5  # a role alone, or 'zts stop'


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


@pytest.mark.parametrize("command", ["start", "torchserve"])
def test_torchserves_options_may_be_shortened_as_there(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[argparse.Namespace] = []
    module = importlib.import_module(f"zts.cli.{command}")
    monkeypatch.setattr(module, "run", lambda args: seen.append(args) or 0)
    words = ["--model-st", "s", "--models", "a", "b", "--ts=c", "--fore", "--nc", "--disable-token", "--enable"]
    # Of TorchServe's options only this one begins so; ours (--log-dir, --log-level) make it no less clear.
    words += ["--log", "l"]
    assert main([*([command] if command == "start" else []), *words]) == 0
    (args,) = seen
    assert (args.model_store, args.models, args.ts_config, args.log_config) == ("s", ["a", "b"], "c", "l")
    assert args.foreground and args.ncs and args.disable_token_auth and args.enable_model_api
    with pytest.raises(SystemExit):
        main([*([command] if command == "start" else []), "--ts-config", "c", "--model", "x"])
    assert "ambiguous option: --model could match --model-store, --models" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # our own are written out
        main([*([command] if command == "start" else []), "--ts-config", "c", "--log-d", "x"])
    assert "did you mean --log-dir?" in capsys.readouterr().err


def test_version_start_and_stop_may_be_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vers"]) == 0
    assert capsys.readouterr().out.startswith("zts ")
    with pytest.raises(SystemExit):
        main(["--st"])
    assert "ambiguous option: --st could match --start, --stop" in capsys.readouterr().err


def test_an_unknown_flag_or_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--modle-store", "x")
    assert caught.value.code == 2
    assert "unknown argument '--modle-store'; did you mean --model-store?" in capsys.readouterr().err
    # Flags of an action of a command, and not those that the command has for all of them.
    with pytest.raises(SystemExit):
        main(["models", "scale", "m", "--min-worker", "1", "--version", "2.0"])
    told = "zts models scale: unknown argument '--version'; did you mean --model-version? (see 'zts models scale"
    assert told in capsys.readouterr().err
    assert main(["strat"]) == 2
    assert "did you mean 'start'?" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
