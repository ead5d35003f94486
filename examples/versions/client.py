"""Ask each version of the spam filter, and the default one, about the same texts."""

import zts

TEXTS = ["lunch at noon", "you are a winner", "invest in coins now"]

with zts.Client() as client:
    for version in ("1.0", "2.0", None):
        answers = client.predict_many("spam", TEXTS, version=version)
        print(version or "default", [answer["label"] for answer in answers])
