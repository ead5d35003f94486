"""Draw shapes, train the network on them, and write its weights and three new drawings to made/."""

import random
from pathlib import Path

import torch
from model import ShapeNet
from PIL import Image, ImageDraw

import zts.compat  # noqa: F401  TorchServe's names, outside of a worker

# isort: split
from ts.torch_handler.image_classifier import ImageClassifier

SHAPES = ["circle", "square", "triangle"]


def drawing(shape):
    """Return a picture of 256x256 pixels with one shape somewhere on it."""
    ground, ink = (tuple(random.randrange(low, low + 60) for _ in range(3)) for low in (20, 180))
    size = random.randrange(80, 130)
    x, y = (random.randrange(30, 226 - size) for _ in range(2))
    picture = Image.new("RGB", (256, 256), ground)
    draw = ImageDraw.Draw(picture)
    if shape == "circle":
        draw.ellipse([x, y, x + size, y + size], fill=ink)
    elif shape == "square":
        draw.rectangle([x, y, x + size, y + size], fill=ink)
    else:
        draw.polygon([(x, y + size), (x + size, y + size), (x + size / 2, y)], fill=ink)
    return picture


random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
# The handler's own way from a picture to a tensor: what the model learns is what it will get.
prepare = ImageClassifier.image_processing
labels = [random.randrange(3) for _ in range(150)]
pictures = torch.stack([prepare(drawing(SHAPES[label])) for label in labels])

model = ShapeNet()
shrunk = model.layers[0](pictures)  # once, not in each step
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(60):
    loss = torch.nn.functional.cross_entropy(model.layers[1:](shrunk), torch.tensor(labels))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

Path("made").mkdir(exist_ok=True)
torch.save(model.state_dict(), "made/shapes.pt")
for shape in SHAPES:
    drawing(shape).save(f"made/{shape}.png")
