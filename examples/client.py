"""Ask the sample model from a thread: one image, then many at once, then an error.

Start zts first (make serve), then: python examples/client.py
"""

from pathlib import Path

import zts

SAMPLES = sorted((Path(__file__).parent.parent / "model_store" / "digits" / "samples").glob("*.png"))


def main() -> None:
    with zts.Client() as client:
        print(SAMPLES[0].name, client.predict("digits", SAMPLES[0].read_bytes()))

        # All of them travel together and form batches; answers come in the order of the images.
        answers = client.predict_many("digits", [path.read_bytes() for path in SAMPLES])
        for path, answer in zip(SAMPLES, answers, strict=True):
            print(path.name, "is probably a", max(answer, key=answer.get))

        try:
            client.predict("no-such-model", b"")
        except zts.errors.ModelNotFound as error:
            print("as expected:", error)


if __name__ == "__main__":
    main()
