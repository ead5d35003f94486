"""What ``zts status`` tells: collected from the runtime folder and the broker, as values and as text. Layer 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zts.clock import wall_time_s
from zts.errors import ZtsError
from zts.masking import masked
from zts.supervisor.instance import Instance
from zts.supervisor.startup_models import ControlFor
from zts.visible import visible

__all__ = ["collect_status", "status_text"]

_TIMEOUT_S: Final = 5.0
_SURFACES: Final = ("inference", "management", "metrics")


def collect_status(instance: Instance, control_for: ControlFor) -> dict[str, Any]:
    """Return the whole status; ``running`` False and nothing else when no instance has this folder.

    A broker that does not answer is reported under ``broker_error``; the rest is told all the same.
    """
    if not instance.is_running():
        return {"running": False, "runtime_dir": str(instance.runtime_dir)}
    settings = instance.read(instance.settings_file)
    published = instance.read(instance.roles_file)
    bound = instance.read(instance.runtime_dir / "http-0.json")  # with the ports that port 0 became
    now = wall_time_s()
    try:
        uptime_s = now - instance.pid_file.stat().st_mtime
    except OSError:
        uptime_s = 0.0
    out: dict[str, Any] = {
        "running": True,
        "runtime_dir": str(instance.runtime_dir),
        "pid": instance.supervisor_pid(),
        "phase": published.get("phase", "starting"),
        "uptime_s": round(uptime_s, 1),
        "roles": [
            {
                "role": role,
                "pid": info["pid"],
                "uptime_s": round(now - info["started_at"], 1),
                "restarts": info["restarts"],
            }
            for role, info in published.get("roles", {}).items()
        ],
        "addresses": {
            **{name: bound.get(name) or settings.get(f"{name}_address", "") for name in _SURFACES},
            **{f"broker_{name}": address for name, address in settings.get("endpoints", {}).items()},
        },
        "nodes": [],
        "models": [],
    }
    _ask_broker(out, control_for)
    return out


def _ask_broker(out: dict[str, Any], control_for: ControlFor) -> None:
    address = out["addresses"].get("broker_control")
    if not address:
        return
    control = control_for(address)
    try:
        status, body = control.request("status", {}, timeout_s=_TIMEOUT_S)
        if status >= 400:
            out["broker_error"] = str(body.get("message", status))
            return
        for key in ("broker", "nodes", "https", "models", "counters"):
            out[key] = body.get(key, [])
    except ZtsError as exc:
        out["broker_error"] = exc.public_message
    finally:
        control.close()


def status_text(status: Mapping[str, Any]) -> str:
    """Return the status as lines for people."""
    if not status["running"]:
        return "zts is not currently running."
    lines = [
        f"zts is {status['phase']}: pid {status['pid']}, up {_duration(status['uptime_s'])}, "
        f"runtime folder {status['runtime_dir']}"
    ]
    for name in _SURFACES:
        lines.append(f"  {name:12}{status['addresses'][name]}")
    lines.append("roles")
    broker_pid = (status.get("broker") or {}).get("pid")
    for role in status["roles"]:
        embedded = ", with the broker" if role["pid"] == broker_pid and role["role"] != "broker" else ""
        restarts = f", restarts: {role['restarts']}" if role["restarts"] else ""
        lines.append(f"  {role['role']:12}pid {role['pid']}, up {_duration(role['uptime_s'])}{restarts}{embedded}")
    if "broker_error" in status:
        lines.append(f"the broker does not answer: {status['broker_error']}")
        return "\n".join(lines)
    lines.append("nodes")
    for node in status["nodes"]:
        host = node.get("hostname", "")
        shown = node.get("node_id") or node.get("id") or host
        lines.append(f"  {shown:12}{host} pid {node.get('pid', '?')}")
    lines.append("models" if status["models"] else "models: none")
    for model in status["models"]:
        lines += _model_lines(model)
    return "\n".join(visible(masked(line)) for line in lines)


def _model_lines(model: Mapping[str, Any]) -> list[str]:
    default = " (default)" if model.get("default") else ""
    lines = [f"  {model['name']} {model['version']}{default}"]
    for worker in model.get("workers", ()):
        reason = f": {worker['reason']}" if worker.get("reason") else ""
        lines.append(f"    worker {worker['worker_id']}  pid {worker.get('pid') or '-'}  {worker['state']}{reason}")
    if not model.get("workers"):
        lines.append("    no workers")
    return lines


def _duration(total_s: float) -> str:
    """Return seconds as people say them.

    >>> [_duration(value) for value in (3.2, 75.0, 7260.0, 90000.0)]
    ['3 s', '1 min 15 s', '2 h 1 min', '1 d 1 h']
    """
    whole = int(total_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
