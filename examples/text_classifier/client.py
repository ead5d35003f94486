"""Classify several texts at once: they travel in one message and form a batch."""

import zts

TEXTS = ["Our team loses the cup", "A biologist observes a new species", "The bank fears new debt"]

with zts.Client() as client:
    answers = client.predict_many("topics", TEXTS)
for text, answer in zip(TEXTS, answers, strict=True):
    print(text, "->", max(answer, key=answer.get))
