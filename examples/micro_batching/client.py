"""Send the eight notes of a scale at once, as WAV files, and print the answers."""

import io
import wave

import numpy as np

import zts

SCALE = [0, 2, 4, 5, 7, 9, 11, 12]  # semitones above C


def sound(semitones):
    """Return a quarter of a second of the note as a WAV file."""
    pitch = 440 * 2 ** ((semitones - 9) / 12)
    samples = 20_000 * np.sin(2 * np.pi * pitch * np.arange(2_000) / 8_000)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()


with zts.Client() as client:
    for answer in client.predict_many("notes", [sound(semitones) for semitones in SCALE]):
        print(f"{answer['note']:2} in micro-batch {answer['micro_batch']}, of {answer['of']}")
