"""Prints and logs what the body asks for, between two marks on each stream."""

import logging
import logging.config
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

logger = logging.getLogger(__name__)


def mark(word, name):
    for stream in (sys.stdout, sys.stderr):
        print(f"-- {word} {name}", file=stream, flush=True)


class Printing:
    def initialize(self, context):
        mark("begin", "printed-initialize")
        logger.info("initialised")
        logging.info("bare")
        mark("end", "printed-initialize")

    def handle(self, data, context):
        for row in data:
            name = bytes(row.get("body") or row.get("data")).decode()
            mark("begin", name)
            getattr(self, name.removeprefix("printed-").replace("-", "_"))()
            mark("end", name)
        return ["printed" for _ in data]

    def levels(self):
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, name)("a line of level %s", name)
            getattr(logging, name)("bare, of level %s", name)
        logging.getLogger("some.library").info("a library's")
        logging.getLogger("ts.torch_handler").info("a ts logger's")

    def own_level(self):
        logger.setLevel(logging.DEBUG)
        logger.debug("now it is seen")
        logger.setLevel(logging.NOTSET)
        logger.debug("now it is not")

    def prints(self):
        print("printed", 1, [2])
        print("printed to stderr", file=sys.stderr)
        sys.stdout.write("in ")
        sys.stdout.write("pieces\n")
        logger.info("then logged")
        print("then printed")
        sys.stdout.flush()
        sys.stdout.buffer.write(b"bytes\n")
        sys.stdout.buffer.flush()
        os.write(1, b"to the descriptor\n")
        os.write(2, b"to the other descriptor\n")

    def texts(self):
        print("two\nlines")
        print()
        print("  blanks around  ")
        print("tab\tand \x1b[31mcolour\x1b[0m and nul \0")
        print("%s %d {} {0} ${x} ${jndi:y}")
        print("z\u00fcrich \u2713 \U0001f600")
        print("line ends of another system\r\nhere", end="\r\n")
        print("[PID]no number")
        print("[INFO ] W-1-other_1.0-stdout MODEL_LOG - not what it says")
        sys.stdout.flush()
        os.write(1, b"no UTF-8 \xff\xfe\n")

    def separators(self):
        print("line\u2028separator")
        print("next\x85line")
        print("vertical\x0btab, form\x0cfeed")

    def progress(self):
        for percent in range(0, 101, 50):
            print(f"\r{percent:3} %", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def warnings(self):
        warnings.warn("a warning", stacklevel=1)
        warnings.warn("one that is not shown", DeprecationWarning, stacklevel=1)

    def exceptions(self):
        try:
            raise ValueError("on purpose")
        except ValueError:
            logger.exception("it failed")

    def huge(self):
        print("begin", "x" * 1_000_000, "end")
        logger.info("%s", "y" * 200_000)

    def threads(self):
        def work(number):
            logger.info("thread %d logs", number)
            print(f"thread {number} prints")

        for number in range(3):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            thread.join()

    def children(self):
        sys.stdout.flush()
        subprocess.run(["sh", "-c", "echo a program; echo its errors >&2"], check=True)
        context = multiprocessing.get_context("fork")
        for work in (lambda: logger.info("a forked process logs"), lambda: print("it prints")):
            process = context.Process(target=work)
            process.start()
            process.join()

    def basic_config(self):
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
        logger.info("as before: the root logger is set up")
        logger.debug("not seen")

    def own_handler(self):
        own = logging.StreamHandler()
        own.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(own)
        logger.info("on both streams")
        logger.propagate = False
        logger.info("on one")
        logger.propagate = True
        logger.removeHandler(own)

    def dict_config(self):
        formatters = {"plain": {"format": "%(name)s %(levelname)s %(message)s"}}
        handlers = {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"}}
        root = {"handlers": ["out"], "level": "DEBUG"}
        logging.config.dictConfig({"version": 1, "formatters": formatters, "handlers": handlers, "root": root})
        logger.info("of a logger that dictConfig disables")
        logging.getLogger("printing.new").debug("of a new one")
        logger.disabled = False

    def forced(self):
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", force=True)
        logger.debug("on stderr")
