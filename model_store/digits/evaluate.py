"""Measure the accuracy of the committed weights of ``digits`` on the held-out images.

    python model_store/digits/evaluate.py

Needs torch and scikit-learn.
"""

import argparse
from pathlib import Path

import torch
from dataset import Digits, load_split
from model import DigitsNet

FOLDER = Path(__file__).resolve().parent


def count_correct(model: DigitsNet, digits: Digits) -> int:
    """Return how many images the model names right, and leave it in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        return int((model(digits.pixels).argmax(dim=1) == digits.labels).sum())


def main() -> None:
    """Print the accuracy of one file of weights."""
    parser = argparse.ArgumentParser(description="Measure the held-out accuracy of the sample model.")
    parser.add_argument("--weights", type=Path, default=FOLDER / "digits.pt", help="state dict to measure")
    weights: Path = parser.parse_args().weights

    torch.set_num_threads(1)
    model = DigitsNet()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    _, held_out = load_split()
    correct, total = count_correct(model, held_out), len(held_out.labels)
    print(f"held-out accuracy: {100 * correct / total:.2f} % ({correct} of {total} images)")


if __name__ == "__main__":
    main()
