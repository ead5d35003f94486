"""Answers after 2 ms and 0.03 ms for each row, of which it uses no processor: batches are worth their while."""

import time


def handle(data, context):
    if data is None:
        return None
    time.sleep(0.002 + 0.000_03 * len(data))
    return [b"ok"] * len(data)
