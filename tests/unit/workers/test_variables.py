"""Which variables of its environment the node agent hands on to workers."""

from __future__ import annotations

import re

import pytest

from zts.workers.node.variables import kept_variables

ENVIRON = {
    "PATH": "/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "PYTHONPATH": "/lib",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "0",
    "LD_LIBRARY_PATH": "/cuda",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_PROFILE": "p",
    "GITHUB_TOKEN": "s",
    "TS_KEYSTORE_PASS": "s",
    "ZTS_BROKER": "separate",
    "DATABASE_URL": "s",
    "HF_HOME": "/hf",
    "HF_TOKEN": "s",
    "NVIDIA_API_KEY": "s",
    "TORCH_HUB_SECRET": "s",
    "PYTHON_KEYRING_BACKEND": "k",
    "NOTIFY_SOCKET": "/run/n",
    "SSH_AUTH_SOCK": "/run/a",
}
MINIMAL = {"PATH", "HOME", "LC_ALL", "PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"}


def kept(*rules: str, blacklist: str = "", is_other_user: bool = False) -> set[str]:
    pattern = re.compile(blacklist) if blacklist else None
    found = kept_variables(ENVIRON, rules=rules, blacklist=pattern, is_other_user=is_other_user)
    assert all(ENVIRON[name] == value for name, value in found.items())
    return set(found)


@pytest.mark.parametrize(
    ("rules", "is_other_user", "names"),
    [
        ((), False, ENVIRON.keys() - {"NOTIFY_SOCKET"}),
        (("all",), False, ENVIRON.keys() - {"NOTIFY_SOCKET"}),
        (("all",), True, ENVIRON.keys() - {"NOTIFY_SOCKET"}),
        (("minimal",), False, MINIMAL | {"PYTHON_KEYRING_BACKEND"}),
        ((), True, MINIMAL | {"PYTHON_KEYRING_BACKEND"}),
        (("minimal", "HF_*"), False, MINIMAL | {"PYTHON_KEYRING_BACKEND", "HF_HOME"}),
        (("minimal", "HF_*", "HF_TOKEN"), True, MINIMAL | {"PYTHON_KEYRING_BACKEND", "HF_HOME", "HF_TOKEN"}),
    ],
)
def test_minimal_has_what_python_and_the_gpu_need_and_what_is_named(
    rules: tuple[str, ...], is_other_user: bool, names: set[str]
) -> None:
    assert kept(*rules, is_other_user=is_other_user) == names


def test_the_blacklist_comes_first() -> None:
    assert "HF_HOME" not in kept("minimal", "HF_HOME", blacklist="HF_.*")
    assert "PATH" not in kept("minimal", blacklist="PATH")


@pytest.mark.parametrize("name", [name for name, value in ENVIRON.items() if value == "s"])
def test_no_pattern_lets_a_secret_through(name: str) -> None:
    if name != "DATABASE_URL":  # nothing in its name tells; it needs a pattern that means it
        assert name not in kept("minimal", "*")
    assert name not in kept("minimal")
