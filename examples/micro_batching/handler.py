"""Tell notes from WAV files, a batch in parts: while one part is computed, the next is read."""

import io
import wave

import torch
from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler

NOTES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


class NoteHandler(BaseHandler):
    def __init__(self):
        super().__init__()
        # Called instead of BaseHandler's handle. It calls the three methods below in threads, so these must not keep
        # anything in self from one to the next: what belongs to a part travels as argument and result.
        self.handle = MicroBatching(self)

    def initialize(self, context):
        super().initialize(context)
        settings = context.model_yaml_config["micro_batching"]
        self.handle.micro_batch_size = settings["micro_batch_size"]
        self.handle.parallelism = settings["parallelism"]

    def preprocess(self, data):
        sounds = [read_wav(row.get("body") or row.get("data")) for row in data]
        return torch.stack(sounds).to(self.device)

    def postprocess(self, data):
        part = self.handle.get_micro_batch_idx()
        return [{"note": NOTES[index], "micro_batch": part, "of": len(data)} for index in data.argmax(dim=1).tolist()]


def read_wav(content):
    """Return the samples of a WAV file of 16 bits, from -1 to 1."""
    with wave.open(io.BytesIO(content)) as file:
        frames = bytearray(file.readframes(2_000))
    return torch.frombuffer(frames, dtype=torch.int16).float() / 32_768
