"""Count which word follows which in a rhyme, and write that to made/model.json: the smallest of language models."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

RHYME = """
there was a crooked man and he walked a crooked mile .
he found a crooked sixpence upon a crooked stile .
he bought a crooked cat which caught a crooked mouse .
and they all lived together in a little crooked house .
"""

followers = defaultdict(list)
for word, follower in pairwise(RHYME.split()):
    followers[word].append(follower)
Path("made").mkdir(exist_ok=True)
Path("made/model.json").write_text(json.dumps(followers))
