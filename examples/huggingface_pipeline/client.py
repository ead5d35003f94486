"""Ask for three texts at once: they travel in one message and form a batch."""

import zts

TEXTS = ["the song is lovely and fresh", "The show is dull.", "a good, strong play"]

with zts.Client() as client:
    for text, answer in zip(TEXTS, client.predict_many("sentiment", TEXTS), strict=True):
        print(f"{text} -> {answer['label']}")
