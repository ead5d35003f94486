"""Writes the weights that the archives need into the folder given: run by the Python that has torch."""

import sys
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from mnist_net import Net


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() * 2 + 1


def main(folder: Path) -> None:
    torch.manual_seed(7)
    torch.save(Net().state_dict(), folder / "mnist.pt")
    torch.jit.script(Doubler()).save(str(folder / "doubler.pt"))
    image = Image.new("L", (28, 28), 0)
    for x in range(8, 20):
        image.putpixel((x, 8), 255)
        image.putpixel((27 - x, x), 255)
    image.save(folder / "seven.png")


main(Path(sys.argv[1]))
