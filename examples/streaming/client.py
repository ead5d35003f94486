"""Print each word with the tenths of a second that it took to come."""

import sys
import time

import zts

with zts.Client() as client, client.stream("story", sys.argv[1]) as parts:
    begun = time.monotonic()
    for part in parts:
        print(f"after {time.monotonic() - begun:.1f} s: {part!r}")
