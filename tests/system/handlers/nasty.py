"""Breaks its own process in every way that a body asks for; no torch."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time


def handle(data, context):
    if data is None:
        flag = os.environ.get("NASTY_FLAG", "")
        if flag and os.path.exists(flag):
            raise ValueError("the weights are torn")
        return None
    return [f"{act(bytes(row.get('body', b'')).decode())} {os.getpid()}" for row in data]


def act(word):
    kind, _, number = word.partition(" ")
    if kind == "hang":
        threading.Event().wait()
    elif kind == "gil":
        ctypes.PyDLL(None).usleep(int(float(number) * 1e6))  # a PyDLL call keeps the GIL
    elif kind == "sleep":
        time.sleep(float(number))
    elif kind == "flood":
        sys.stdout.write("x" * 5_000_000)
        sys.stdout.flush()
        os.write(2, os.urandom(500_000))
    elif kind == "mute":
        os.close(1)
        os.close(2)
    elif kind == "breed":
        threading.Thread(target=threading.Event().wait).start()
        subprocess.Popen(["sleep", "600"])
        if os.fork() == 0:
            time.sleep(600)
    elif kind == "deaf":
        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(signal_number, signal.SIG_IGN)
    elif kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    return word
