from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from zts.errors import ConfigError
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.workers.exit_codes import EXIT_DONE, EXIT_OUT_OF_MEMORY
from zts.workers.node.gpus import Gpu, _parse_nvidia_smi, find_gpus
from zts.workers.node.model_users import ModelUsers
from zts.workers.node.processes import exit_reason, worker_command, worker_environment
from zts.workers.node.variables import kept_variables
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd)
"""


def driver(tmp_path: Path, count: int) -> Path:
    for number in range(count):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA T{number}\nIRQ: 1\n")
    return tmp_path


def options(**changes: object) -> WorkerOptions:
    values = {"handler": "h", **changes}
    spec = ModelSpec(name="m", version="1.0", handler=str(values.pop("handler")))
    return WorkerOptions(
        worker_id="9000", epoch=1, spec=spec, model_dir="/d/m", worker_endpoint="w", control_endpoint="c"
    )


def test_slices_stand_for_their_gpu() -> None:
    assert _parse_nvidia_smi(LISTING) == [
        Gpu("NVIDIA A100-SXM4-40GB", "0"),
        Gpu("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-cccc"),
        Gpu("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-dddd"),
    ]


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("zts.workers.node.gpus._by_nvidia_smi", list)
    return driver(tmp_path, 3)


def test_gpus_of_the_driver_are_found_without_any_tool(three: Path) -> None:
    assert find_gpus({}, proc=three) == [Gpu(f"NVIDIA T{number}", str(number)) for number in range(3)]
    assert [gpu.token for gpu in find_gpus({}, 2, proc=three)] == ["0", "1"]
    assert find_gpus({}, 0, proc=three) == []
    assert find_gpus({}, proc=three / "none") == []


@pytest.mark.parametrize(
    ("visible", "tokens"),
    [("", []), ("2,0", ["2", "0"]), ("1, 7, 0", ["1"]), ("-1", []), ("GPU-ffff", ["GPU-ffff"])],
)
def test_cuda_visible_devices_limits_and_orders_them(three: Path, visible: str, tokens: list[str]) -> None:
    assert [gpu.token for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": visible}, proc=three)] == tokens


def test_environment_is_the_agents_without_what_is_hidden_plus_torchserves() -> None:
    base = {"PYTHONPATH": "/lib", "AWS_KEY": "k", "AWS": "a", "NOTIFY_SOCKET": "/s", "HOME": "/h"}
    hidden = re.compile("AWS_.*")
    kept = kept_variables(base, rules=(), blacklist=hidden, is_other_user=False)
    env = worker_environment(options(handler="pkg/h.py:f"), base=kept)
    text = env.pop(OPTIONS_VARIABLE)
    assert WorkerOptions.from_json(text) == options(handler="pkg/h.py:f")
    assert env == {
        "AWS": "a",
        "HOME": "/h",
        "PYTHONPATH": "/lib",
        "TS_DECODE_INPUT_REQUEST": "true",
        "TS_IPEX_ENABLE": "false",
        "TS_IPEX_GPU_ENABLE": "false",
        "OMP_NUM_THREADS": "1",
    }


def test_a_worker_is_not_told_the_secrets_of_its_archives_address() -> None:
    known = options()
    given = replace(known, spec=replace(known.spec, url="https://u:p4ssw0rd@h/m.mar?sig=s1gnature"))
    text = worker_environment(given, base={})[OPTIONS_VARIABLE]
    assert WorkerOptions.from_json(text).spec.url == "https://***@h/m.mar?sig=***"
    assert "p4ssw0rd" not in text
    assert "s1gnature" not in text


def test_worker_sees_its_gpu_only_or_none() -> None:
    on_gpu = worker_environment(options(), base={}, gpu=Gpu("x", "3"), hide_gpus=True)
    assert (on_gpu["CUDA_VISIBLE_DEVICES"], on_gpu["CUDA_DEVICE_ORDER"]) == ("3", "PCI_BUS_ID")
    assert worker_environment(options(), base={}, hide_gpus=True)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(options(), base={})


def test_threads_that_the_user_set_stand() -> None:
    assert worker_environment(options(), base={"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_hidden_variables_need_a_regular_expression() -> None:
    settings = Settings(runtime_dir="", endpoints=Endpoints.in_folder("/r"), blacklist_env_vars="(")
    with pytest.raises(ConfigError, match="no regular expression"):
        ModelUsers(settings).variables(None, {})


def test_command_line_shows_role_model_and_slot() -> None:
    words = worker_command(options())[1:]
    assert " ".join(words) == "-P -m zts worker --model-name=m --model-version=1.0 --worker-id 9000"


@pytest.mark.parametrize(
    ("returncode", "oom", "lines", "asked", "words"),
    [
        (-signal.SIGSEGV, False, ["x"], False, "killed by signal 11 (SIGSEGV)"),
        (-9, True, ["x"], False, "killed by signal 9 (SIGKILL); its memory group (cgroup) ran out of memory"),
        (-99, False, [], False, "killed by signal 99 (unknown)"),
        (1, False, ["a", "KeyError: 'b'"], False, "exited with code 1: KeyError: 'b'"),
        (EXIT_OUT_OF_MEMORY, False, [], False, "exited with code 4 (out of memory while loading)"),
        (EXIT_DONE, False, ["bye"], False, "exited with code 0 (it left though nobody asked it to)"),
        (EXIT_DONE, False, ["bye"], True, "exited with code 0 (as asked)"),
    ],
)
def test_cause_of_an_end_is_one_line(returncode: int, oom: bool, lines: list[str], asked: bool, words: str) -> None:
    assert exit_reason(returncode, oom=oom, last_lines=lines, was_asked=asked) == words
