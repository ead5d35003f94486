"""Host figures, ``system_metrics_cmd``, and the pipe that worker lines go through."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zts.metrics.lines import Measurement
from zts.workers.handler.metric_output import MetricOutput
from zts.workers.node.host_metrics import HostMetrics, built_in_measurements, command_line, command_measurements

SCRIPT = """
import sys
print("CPUUtilization.Percent:12.5|#Level:Host|#hostname:xx,1795340916")
print("4711:1048576")
print(sys.stdin.readline().strip() and "MemoryUsed.Megabytes:7|#Level:Host|#hostname:xx,timestamp:17")
print("")
print(*sys.argv[1:])
"""


def test_built_in_figures_have_torchserves_names_and_units() -> None:
    found = {row.name: row for row in built_in_measurements()}
    assert {(row.name, row.unit) for row in found.values()} == {
        ("CPUUtilization", "Percent"),
        ("MemoryUtilization", "Percent"),
        ("DiskUtilization", "Percent"),
        ("MemoryUsed", "Megabytes"),
        ("MemoryAvailable", "Megabytes"),
        ("DiskUsage", "Gigabytes"),
        ("DiskAvailable", "Gigabytes"),
    }
    assert {row.dimensions for row in found.values()} == {(("Level", "Host"),)}
    assert 0 <= found["CPUUtilization"].value <= 100
    assert found["MemoryAvailable"].value > 0


def test_a_script_replaces_them_and_is_told_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "cmd.py"
    script.write_text(SCRIPT)
    level = (("Level", "Host"),)
    assert command_measurements(f"{script} --gpu '0 1'", [4711, 4712]) == (
        [
            Measurement("CPUUtilization", "Percent", 12.5, level, "", "xx"),
            Measurement("MemoryUsed", "Megabytes", 7.0, level, "", "xx"),
        ],
        "--gpu 0 1",
    )
    assert command_line(f"{script} -x") == [sys.executable, str(script), "-x"]
    assert command_line("sh -c 'exit 1'") == ["sh", "-c", "exit 1"]


@pytest.mark.parametrize("command", ["/none.py", "sh -c 'echo why >&2; exit 3'", "'open", "  "])
def test_a_command_that_does_not_work_is_named_and_replaced(command: str, caplog: pytest.LogCaptureFixture) -> None:
    woken = threading.Event()
    host = HostMetrics(interval_s=60, command=command, pids=list, wake=woken.set)
    host.start()
    assert woken.wait(20)
    host.stop()
    assert "MemoryUsed" in {row.name for row in host.take()}
    assert host.take() == []
    assert f"system_metrics_cmd={command}: " in caplog.text


def test_figures_come_at_the_start_and_after_each_interval(tmp_path: Path) -> None:
    count = threading.Semaphore(0)
    host = HostMetrics(interval_s=0.01, pids=list, wake=count.release)
    host.start()
    assert count.acquire(timeout=20)
    assert count.acquire(timeout=20)
    host.stop()


def test_lines_are_written_whole_and_at_once(tmp_path: Path) -> None:
    read, write = os.pipe()
    output = MetricOutput(write)
    output(["a", "b"])
    assert os.read(read, 100) == b"a\nb\n"
    assert os.get_blocking(write)  # for handlers' print()
    os.close(read)
    output(["nobody reads"])
    os.close(write)


def test_a_full_pipe_never_holds_the_worker_up() -> None:
    read, write = os.pipe()
    output = MetricOutput(write)
    lines = [f"{number:05} {'x' * 994}" for number in range(900)]
    for line in lines:
        output([line])  # a pipe holds about 64 of them
    got = b""
    while got.count(b"\n") < 900:
        got += os.read(read, 1 << 20)
        output([])  # whoever prints next also brings what waits
    assert [line for line in got.decode().split("\n") if line] == lines
    assert output.dropped == 0
    for line in lines * 2:
        output([line])
    assert output.dropped > 0
    os.close(read)
    os.close(write)


def test_a_log_file_as_standard_output_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "out"
    code = "from zts.workers.handler.metric_output import *; print(1, flush=True); MetricOutput()(['a']); print(2)"
    with path.open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=60)
    assert path.read_text() == "1\na\n2\n"
