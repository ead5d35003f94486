"""Draw coins and boxes, train the network on them, and write its weights and a picture to made/."""

import random
from pathlib import Path

import numpy as np
import torch
from model import CoinsAndBoxes
from PIL import Image, ImageDraw
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss

SIDE = 64
COIN, BOX = 0, 1


def drawing(things):
    """Return a picture with ``things``, each as (class, x, y, width)."""
    picture = Image.new("RGB", (SIDE, SIDE), (30, 30, 40))
    draw = ImageDraw.Draw(picture)
    for kind, x, y, width in things:
        if kind == COIN:
            draw.ellipse([x, y, x + width, y + width], fill=(230, 200, 90))
        else:
            draw.rectangle([x, y, x + width, y + width], fill=(70, 120, 220))
    return picture


def some_things():
    """Return two things, one in the left and one in the right half."""
    found = []
    for left in (2, 34):
        width = random.randrange(12, 24)
        x, y = left + random.randrange(28 - width), random.randrange(2, SIDE - 2 - width)
        found.append((random.choice([COIN, BOX]), x, y, width))
    return found


random.seed(0)
torch.manual_seed(2)
torch.set_num_threads(1)
scenes = [some_things() for _ in range(128)]
pictures = torch.stack([torch.from_numpy(np.array(drawing(scene))).permute(2, 0, 1) / 255 for scene in scenes])

# The picture, the class, the width and the place of each thing's centre, and a map with all centres.
rows = [(number, *thing) for number, scene in enumerate(scenes) for thing in scene]
number, kind, x, y, width = torch.tensor(rows).T
column, row = (x + width // 2) // CoinsAndBoxes.stride, (y + width // 2) // CoinsAndBoxes.stride
centres = torch.zeros(len(scenes), 1, *[SIDE // CoinsAndBoxes.stride] * 2)
centres[number, 0, row, column] = 1

model = CoinsAndBoxes()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(150):
    batch = slice(start := 16 * (step % 8), start + 16)
    here = (number >= batch.start) & (number < batch.stop)
    at = (number[here] - start, slice(None), row[here], column[here])
    found_centres, found_kinds, found_sizes = model.maps(pictures[batch])
    loss = 10 * binary_cross_entropy_with_logits(found_centres, centres[batch], pos_weight=torch.tensor(10.0))
    loss += cross_entropy(found_kinds[at], kind[here])
    loss += 0.1 * l1_loss(found_sizes[at], width[here, None].expand(-1, 2).float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

Path("made").mkdir(exist_ok=True)
torch.save(model.state_dict(), "made/detector.pt")
drawing([(COIN, 13, 13, 14), (BOX, 35, 35, 20)]).save("made/scene.png")
