"""Classify all drawings at once: they travel in one message and form a batch."""

from pathlib import Path

import zts

paths = sorted(Path("made").glob("*.png"))
with zts.Client() as client:
    answers = client.predict_many("shapes", [path.read_bytes() for path in paths])
for path, answer in zip(paths, answers, strict=True):
    print(path.name, "is a", max(answer, key=answer.get))
