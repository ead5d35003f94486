"""Metrics as a TorchServe user finds them: /metrics by mode, log files, metrics.yaml, a handler's own metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import Server, call, make_archive, wait_for

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    body = bytes(data[0]["body"])
    context.metrics.add_counter("Bytes", len(body), 0)
    context.metrics.add_time("Own", 1.5)
    context.metrics.add_counter("Bytes", -1)
    if body == b"boom":
        raise ValueError("boom")
    return [str(len(body))] * len(data)
"""
YAML = """
dimensions:
  - &model "ModelName"
  - &level "Level"
ts_metrics:
  counter:
    - name: Requests2XX
      unit: Count
      dimensions: [*level, "Hostname"]
model_metrics:
  counter:
    - name: Bytes
      unit: count
      dimensions: [*model, *level]
  histogram:
    - name: PredictionTime
      unit: ms
      dimensions: [*model, *level]
"""
MakeServer = Callable[..., Server]


def started(make_server: MakeServer, *lines: str) -> Server:
    server = make_server()
    make_archive(server.store, "own", HANDLER)
    config = server.folder / "ts.properties"
    config.write_text("\n".join(("default_workers_per_model=1", *lines)) + "\n")
    server.environ["METRICS_LOCATION"] = str(server.folder / "metrics")
    server.start("--ts-config", str(config), "--models", "own.mar", "--ncs")
    return server


def scrape(server: Server, query: str = "") -> str:
    return call(server.url("metrics", f"/metrics{query}")).body.decode()


def value_of(text: str, sample: str) -> float | None:
    """Return the value of the only sample whose text before it matches, without the host's name."""
    found = re.findall(rf"^{sample} (\S+)$", re.sub(r',?[Hh]ostname="[^"]*",', ",", text), re.MULTILINE)
    return float(found[0]) if found else None


def test_mode_prometheus_shows_everything(make_server: MakeServer) -> None:
    server = started(make_server, "metrics_mode=prometheus", "model_metrics_auto_detect=true")
    assert server.predict("own", b"12345").body == b"5"
    assert call(server.url("inference", "/predictions/own/1.0"), method="POST", data=b"123").status == 200
    assert server.predict("own", b"boom").status == 503
    assert server.predict("nope").status == 404
    wait_for(lambda: value_of(scrape(server), r'Bytes\{ModelName="own",Level="Model",\}') == 12, "the handler's bytes")
    wait_for(lambda: value_of(scrape(server), r'CPUUtilization\{Level="Host",\}') is not None, "the host's figures")
    text = scrape(server)
    for sample, value in (
        (r'Own\{ModelName="own",Level="Model",\}', 1.5),
        (r'Requests4XX\{Level="Host",\}', 1),
        (r'Requests5XX\{Level="Host",\}', 1),
        (r'ts_inference_requests_total\{model_name="own",model_version="default",\}', 2),
        (r'ts_inference_requests_total\{model_name="own",model_version="1.0",\}', 1),
        (r'zts_answers_total\{model_name="own",model_version="1.0",status="503"\}', 1),
    ):
        assert value_of(text, sample) == value, sample
    for name in ("PredictionTime", "ts_inference_latency_microseconds", "QueueTime", "WorkerLoadTime", "DiskUsage"):
        assert len(re.findall(rf"^{name}\{{", text, re.MULTILINE)) >= 1, name
    assert "# HELP Own Torchserve prometheus gauge metric with unit: Milliseconds" in text
    assert "# HELP PredictionTime Torchserve prometheus gauge metric with unit: ms" in text
    only = scrape(server, "?name[]=Own&name[]=zts_workers")
    assert re.findall(r"^# TYPE (\S+)", only, re.MULTILINE) == ["Own", "zts_workers"]
    assert not list((server.folder / "metrics").glob("*_metrics.log"))


def test_mode_log_writes_files_and_shows_our_own_families_only(make_server: MakeServer) -> None:
    server = started(make_server)
    headers = {"x-request-id": "my-id-1"}
    assert server.predict("own", b"12345", headers=headers).body == b"5"

    def lines(name: str) -> list[str]:
        path = server.folder / "metrics" / name
        return path.read_text().splitlines() if path.exists() else []

    wait_for(lambda: any("PredictionTime" in line for line in lines("model_metrics.log")), "a prediction time")
    wait_for(lambda: any("Requests2XX" in line for line in lines("ts_metrics.log")), "a request")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - "
    tail = r"\|#ModelName:own,Level:Model\|#hostname:[^,]+,requestID:my-id-1,timestamp:\d{10}"
    # Not in the packaged metrics.yaml, so neither Bytes nor Own is there.
    assert [
        line
        for line in lines("model_metrics.log")
        if not re.fullmatch(rf"{stamp}PredictionTime\.ms:[\d.]+{tail}", line)
    ] == []
    server_line = rf"{stamp}(\w+)\.(\w+):[\d.]+\|#[\w.:,-]+\|#hostname:[^,]+,timestamp:\d{{10}}"
    matches = [re.fullmatch(server_line, line) for line in lines("ts_metrics.log")]
    assert all(matches)
    names = {match[1] for match in matches if match}
    assert {"Requests2XX", "ts_inference_requests_total", "WorkerLoadTime", "MemoryUsed"} <= names
    families = re.findall(r"^# TYPE (\S+)", scrape(server), re.MULTILINE)
    assert "zts_requests_total" in families
    assert all(name.startswith("zts_") for name in families)
    model_log = (server.folder / "logs" / "model_log.log").read_text()
    assert "[METRICS]" not in model_log
    assert "metric Bytes: a counter cannot go down; the value -1 is dropped" in model_log


@pytest.mark.separate_only("about what workers and hosts report")
def test_metrics_yaml_decides_what_is_kept(make_server: MakeServer, tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(YAML)
    server = started(make_server, "metrics_mode=prometheus", f"metrics_config={path}")
    for body in (b"1", b"22", b"333"):
        assert server.predict("own", body).status == 200
    count = r'PredictionTime_count\{ModelName="own",Level="Model",\}'
    wait_for(lambda: value_of(scrape(server), count) == 3, "three predictions in the histogram")
    text = scrape(server)
    families = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert [name for name in families if not name.startswith("zts_")] == ["Requests2XX", "Bytes", "PredictionTime"]
    assert value_of(text, r'Bytes\{ModelName="own",Level="Model",\}') == 6
    assert "# HELP Bytes Torchserve prometheus counter metric with unit: count" in text


@pytest.mark.separate_only("about what workers and hosts report")
@pytest.mark.parametrize(("text", "said"), [("model_metrics: {meter: []}", "model_metrics.meter"), ("{", "is no YAML")])
def test_a_bad_metrics_yaml_stops_the_start_with_one_line(
    make_server: MakeServer, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(text)
    (tmp_path / "ts.properties").write_text(f"metrics_config={path}\n")
    server = make_server()
    done = server.run("start", "--foreground", *server.start_flags(), "--ts-config", str(tmp_path / "ts.properties"))
    assert done.returncode != 0
    assert f"metrics_config={path}" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.separate_only("about what workers and hosts report")
def test_a_command_can_stand_in_for_the_hosts_figures(make_server: MakeServer, tmp_path: Path) -> None:
    script = tmp_path / "figures.py"
    script.write_text("print('CPUUtilization.Percent:12.5|#Level:Host|#hostname:elsewhere,1795340916')\n")
    server = started(make_server, "metrics_mode=prometheus", f"system_metrics_cmd={script}", "metric_time_interval=1")
    wait_for(
        lambda: 'CPUUtilization{Level="Host",Hostname="elsewhere",} 12.5' in scrape(server), "the command's figure"
    )
    assert "MemoryUsed{" not in scrape(server)


@pytest.mark.separate_only("about what workers and hosts report")
def test_the_hosts_figures_can_be_switched_off(make_server: MakeServer) -> None:
    server = started(make_server, "metrics_mode=legacy", "disable_system_metrics=true")
    assert server.predict("own").status == 200
    path = server.folder / "metrics" / "ts_metrics.log"
    wait_for(lambda: path.exists() and "Requests2XX" in path.read_text(), "the request in the log")
    text = path.read_text()
    # In mode legacy these three are on the port and not in the file.
    assert "ts_inference" not in text
    assert "CPUUtilization" not in text
    names = re.findall(r"^# TYPE (\S+)", scrape(server), re.MULTILINE)
    assert [name for name in names if not name.startswith("zts_")] == [
        "ts_inference_requests_total",
        "ts_inference_latency_microseconds",
        "ts_queue_latency_microseconds",
    ]
