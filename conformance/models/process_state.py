"""Tells in what state the process is in which it runs: while it is imported, initialised, and asked."""

import asyncio
import faulthandler
import gc
import json
import locale
import logging
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings

SHOWN = ("PYTHON", "TS_", "OMP_", "MKL_", "OPENBLAS", "NUMEXPR", "CUDA", "LC_", "LANG", "LOG", "METRICS", "TEMP", "TMP")
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT")]
HERE = os.path.dirname(os.path.abspath(__file__))


def handler_of_lines(handler):
    stream = getattr(getattr(handler, "stream", None), "name", None)
    form = getattr(handler.formatter, "_fmt", None)
    return [type(handler).__name__, handler.level, stream, form, len(handler.filters)]


def logger(name):
    found = logging.getLogger(name)
    return {
        "level": found.level,
        "effective": found.getEffectiveLevel(),
        "handlers": [handler_of_lines(one) for one in found.handlers],
        "propagate": found.propagate,
        "disabled": found.disabled,
        "filters": len(found.filters),
    }


def logging_():
    return {
        "root": logger(None),
        "own": logger(__name__),
        "ts": logger("ts"),
        "handlers": logger("ts.torch_handler.base_handler"),
        "disable": logging.root.manager.disable,
        "raise": logging.raiseExceptions,
        "class": logging.getLoggerClass().__name__,
        "factory": logging.getLogRecordFactory().__name__,
        "names": sorted(logging.getLevelNamesMapping()),
        "last": type(logging.lastResort).__name__,
    }


def warnings_():
    # Those of libraries depend on their versions.
    plain = [found for found in warnings.filters if found[1] is None and found[2].__module__ == "builtins"]
    return {
        "filters": [[action, kind.__name__, str(module)] for action, _, kind, module, _ in plain],
        "shown by": warnings.showwarning.__module__,
    }


def environment():
    return {name: value if name.startswith(SHOWN) else "set" for name, value in sorted(os.environ.items())}


def folders():
    first = []
    for path in sys.path:
        if path.startswith(sys.base_prefix):
            break
        first.append(path)
    return {
        "cwd": os.getcwd(),
        "path": first,
        "file": __file__,
        "name": [__name__, __package__, __spec__.name],
        "temp": tempfile.gettempdir(),
        "cache prefix": sys.pycache_prefix,
    }


def program():
    main = sys.modules["__main__"]
    return {
        "argv": len(sys.argv) > 0 and os.path.basename(sys.argv[0]),
        "main": main.__name__,
        "main file": os.path.basename(main.__file__),
        "main spec": getattr(main.__spec__, "name", None),
        "executable": os.path.basename(sys.executable),
        "multiprocessing": [
            multiprocessing.get_start_method(allow_none=True),
            multiprocessing.current_process().name,
            multiprocessing.current_process().daemon,
        ],
    }


def threads():
    return {
        "is main": threading.current_thread() is threading.main_thread(),
        "name": threading.current_thread().name,
        "others": sorted(t.name for t in threading.enumerate() if t is not threading.current_thread()),
        "stack size": threading.stack_size(),
    }


def stream(one):
    if one is None:
        return None
    names = ("encoding", "errors", "line_buffering", "write_through", "closed", "name", "mode")
    return {
        **{name: getattr(one, name, None) for name in names},
        "type": type(one).__name__,
        "tty": one.isatty(),
        "own": one is getattr(sys, f"__{one.name[1:-1]}__"),
    }


def descriptor(number):
    mode = os.fstat(number).st_mode
    kinds = [kind for kind in ("ISREG", "ISFIFO", "ISSOCK", "ISCHR") if getattr(stat, f"S_{kind}")(mode)]
    return [kinds, os.get_blocking(number), os.get_inheritable(number)]


def streams():
    known = {name: stream(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")}
    opened = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    return {
        **known,
        "descriptors": [descriptor(number) for number in range(3)],
        "inherited by programs": [fd for fd in sorted(opened) if os.get_inheritable(fd)],
    }


def disposition(number):
    found = signal.getsignal(number)
    if found is signal.default_int_handler:
        return "KeyboardInterrupt"
    return found.name if isinstance(found, signal.Handlers) else "a function"


def signals():
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    return {
        "dispositions": {one.name: disposition(one) for one in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakeup": wakeup >= 0,
        "timer": signal.getitimer(signal.ITIMER_REAL),
    }


def children():
    """Return what processes that the handler starts find, and whether they end as they should."""
    code = "import signal; print([str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    forked = context.Process(target=lambda: (theirs.send(signals()["dispositions"]), time.sleep(60)))
    forked.start()
    seen = ours.recv()
    forked.terminate()
    forked.join(10)
    if forked.is_alive():
        forked.kill()
    return {
        "a program": program.stdout.strip(),
        "forked": [seen[name] for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGPIPE")],
        "terminated": forked.exitcode,
    }


def locale_():
    return {
        "preferred": [locale.getpreferredencoding(), locale.getpreferredencoding(False)],
        "file system": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()],
        "default": sys.getdefaultencoding(),
        "set": locale.setlocale(locale.LC_ALL),
        "zone": time.tzname,
    }


def limits():
    mask = os.umask(0)
    os.umask(mask)
    return {
        "umask": oct(mask),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "nice": os.nice(0),
        "scheduler": os.sched_getscheduler(0),
        "cores": sorted(os.sched_getaffinity(0)),
        "ended first": open("/proc/self/oom_score_adj").read().strip(),
        "users": [os.getuid(), os.getgid(), sorted(os.getgroups())],
        "own group": os.getpgid(0) == os.getpid(),
        "own session": os.getsid(0) == os.getpid(),
    }


def python():
    return {
        "flags": {name: getattr(sys.flags, name) for name in sys.flags.__match_args__},
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "garbage": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
        "frozen": gc.get_freeze_count() > 0,
        "hooks": [
            sys.excepthook is sys.__excepthook__,
            threading.excepthook is threading.__excepthook__,
            sys.unraisablehook is sys.__unraisablehook__,
            sys.displayhook is sys.__displayhook__,
            sys.breakpointhook is sys.__breakpointhook__,
        ],
        "traced": [sys.gettrace() is not None, sys.getprofile() is not None],
        "faulthandler": faulthandler.is_enabled(),
        "writes bytecode": not sys.dont_write_bytecode,
        "ts": "ts" in sys.modules,
    }


def loops():
    try:
        asyncio.get_running_loop()
        running = True
    except RuntimeError:
        running = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "running": running,
            "own": type(asyncio.get_event_loop()).__name__,
            "policy": type(asyncio.get_event_loop_policy()).__name__,
        }


def torch_():
    import torch

    return {
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.tensor(1).device),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "anomaly": torch.is_anomaly_enabled(),
        "warns always": torch.is_warn_always_enabled(),
    }


PARTS = {
    "logging": logging_,
    "warnings": warnings_,
    "environment": environment,
    "folders": folders,
    "program": program,
    "threads": threads,
    "streams": streams,
    "signals": signals,
    "children": children,
    "locale": locale_,
    "limits": limits,
    "python": python,
    "loops": loops,
    "torch": torch_,
}


def report():
    return {name: part() for name, part in PARTS.items()}


def cleaned(value):
    """Return ``value`` with the names of folders that differ between any two servers replaced."""
    text = json.dumps(value)
    for old, new in ((HERE, "<model>"), (sys.prefix, "<venv>"), (sys.base_prefix, "<python>")):
        text = text.replace(old, new)
    return json.loads(text)


SEEN = {"import": report()}


class ProcessState:
    def initialize(self, context):
        SEEN["initialize"] = report()

    def handle(self, data, context):
        SEEN["handle"] = report()
        return [self.answer(bytes(row.get("body") or row.get("data")).decode()) for row in data]

    def answer(self, part):
        if part != "stages":
            return cleaned(SEEN["handle"][part])
        last = SEEN["handle"]
        return [
            [stage, name, cleaned(seen[name]), cleaned(last[name])]
            for stage, seen in SEEN.items()
            for name in PARTS
            if seen[name] != last[name]
        ]
