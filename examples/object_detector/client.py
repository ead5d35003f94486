"""Print what the detector finds in a picture, one thing in a line."""

import sys
from pathlib import Path

import zts

with zts.Client() as client:
    found = client.predict("detector", Path(sys.argv[1]).read_bytes())
for thing in found:
    score = thing.pop("score")
    ((label, box),) = thing.items()
    print(f"{label} at {[round(value) for value in box]}, score {score:.2f}")
