"""Ask for headlines for 500 users, let some of them click, and compare the two versions."""

import random
from collections import Counter

from split import version_for

import zts

CLICKS = {"1.0": 0.10, "2.0": 0.25}  # real users decide themselves


def clicks(user, version):
    return random.Random(f"{user} sees {version}").random() < CLICKS[version]


shown, clicked = Counter(), Counter()
with zts.Client() as client:
    for user in (f"user-{number}" for number in range(500)):
        version = version_for(user)
        client.predict("headline", {"user": user}, version=version)
        shown[version] += 1
        clicked[version] += clicks(user, version)

for version in sorted(shown):
    share = 100 * clicked[version] / shown[version]
    print(f"{version}: shown {shown[version]} times, clicked {clicked[version]} times ({share:.0f} %)")
