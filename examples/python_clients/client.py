"""Ask from a thread: one array, many at once, a dict with an array in it, and something wrong."""

import numpy as np

import zts

vectors = np.load("made/vectors.npy")

with zts.Client() as client:
    # What the handler returns comes back as it was: here a dict of two arrays.
    answer = client.predict("nearest", vectors[42])
    print("one:", answer["index"], answer["index"].dtype, answer["distance"].dtype)

    # These travel together and form batches; the answers come in the order of the queries.
    answers = client.predict_many("nearest", vectors[:100])
    print("many:", [int(answer["index"][0]) for answer in answers][:5], "…", len(answers), "answers")

    # Arrays may stand anywhere in lists and dicts.
    answer = client.predict("nearest", {"queries": vectors[:2] + 0.1, "count": 3})
    print("dict:", answer["index"].shape, answer["index"][:, 0])

    # Every error of the server or the handler is a zts.errors.ZtsError, with the status that REST would show.
    for model, query in (("nearest", vectors[0, :3]), ("no-such-model", vectors[0])):
        try:
            client.predict(model, query, timeout_s=5)
        except zts.errors.ZtsError as error:
            print("error:", error.http_status, type(error).__name__, error)
