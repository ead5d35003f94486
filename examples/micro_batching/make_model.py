"""Write the waves of twelve notes in three octaves, which are the model's weights: made/notes.pt."""

import math
from pathlib import Path

import torch
from model import RATE, SAMPLES, NoteDetector

pitches = 440 * 2 ** ((torch.arange(12)[:, None] - 9) / 12 + torch.tensor([-1, 0, 1]))  # C to B, around A at 440 Hz
phases = 2 * math.pi * pitches.flatten()[:, None] * torch.arange(SAMPLES) / RATE

detector = NoteDetector()
detector.waves.copy_(torch.cat([phases.sin(), phases.cos()]))
Path("made").mkdir(exist_ok=True)
torch.save(detector.state_dict(), "made/notes.pt")
