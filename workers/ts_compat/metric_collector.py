"""``ts.metrics.metric_collector``: the script that TorchServe runs for a host's figures.

``python -m ts.metrics.metric_collector --gpu N`` reads process ids, comma-separated, from standard input, and prints
the host's figures as metric lines, then ``pid:bytes`` for each process.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from zts.workers.ts_compat import system_metrics
from zts.workers.ts_compat.process_memory import check_process_mem_usage

__all__ = ["check_process_mem_usage", "main", "system_metrics"]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(prog="metric_collector")
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="GPUs to ask (none)")
    system_metrics.collect_all(system_metrics, parser.parse_args(argv).gpu)
    check_process_mem_usage(sys.stdin)


if __name__ == "__main__":
    main()
