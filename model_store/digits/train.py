"""Train the sample model ``digits``, write its weights, its sample images and its archive.

    python model_store/digits/train.py

The same seed gives the same weights on the same machine and release of torch;
elsewhere the last digits may differ. Needs torch, scikit-learn and Pillow, one
core and less than a minute. ``--archive-only`` packs the files that are there.
"""

import argparse
import json
import zipfile
from pathlib import Path

import torch
from dataset import Digits, load_split
from evaluate import count_correct
from model import DigitsNet
from PIL import Image
from torch import nn

FOLDER = Path(__file__).resolve().parent
ARCHIVE = FOLDER.parent / "digits.mar"
# The order in which torch-model-archiver 0.12 puts them; the manifest comes last.
ARCHIVED_FILES = ("digits.pt", "model.py", "model-config.yaml", "index_to_name.json", "handler.py")
MANIFEST = {
    # Fixed, here and in the file times, so that unchanged files give an unchanged archive.
    "createdOn": "01/01/2025 00:00:00",
    "runtime": "python",
    "model": {
        "modelName": "digits",
        "serializedFile": "digits.pt",
        "handler": "handler.py",
        "modelFile": "model.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    },
    "archiverVersion": "0.12.0",
}
FILE_TIME = (2025, 1, 1, 0, 0, 0)
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.01
SAMPLE_SIDE = 64


def shift_at_random(pixels: torch.Tensor) -> torch.Tensor:
    """Return the images, each moved by up to one pixel each way; blank paper comes in at the edge."""
    count = len(pixels)
    padded = nn.functional.pad(pixels[:, 0], (1, 1, 1, 1))
    rows = torch.arange(8) + torch.randint(0, 3, (count, 1))
    columns = torch.arange(8) + torch.randint(0, 3, (count, 1))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def train(digits: Digits, *, epochs: int, seed: int) -> DigitsNet:
    """Return a network trained on ``digits``, and print the loss of every fifth epoch.

    The held-out images play no part: the weights are those after the last epoch.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = DigitsNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.01)
    count = len(digits.labels)
    batches = -(-count // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=epochs * batches)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.02)
    model.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for chosen in torch.randperm(count).split(BATCH_SIZE):
            loss = loss_of(model(shift_at_random(digits.pixels[chosen])), digits.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        if epoch % 5 == 0 or epoch == epochs:
            print(f"epoch {epoch:3d} of {epochs}: training loss {total / count:.4f}", flush=True)
    return model


def write_samples(model: DigitsNet, held_out: Digits, folder: Path) -> None:
    """Write one PNG for each digit: the first held-out image of it that the model names right.

    The handler gets the data set's exact values back: the mean over 8x8 equal
    pixels is their value, and 17 steps of ink fit well into 256 of grey.

    Raises:
        SystemExit: If the model names no held-out image of some digit right.
    """
    folder.mkdir(exist_ok=True)
    with torch.inference_mode():
        named = model(held_out.pixels).argmax(dim=1)
    for digit in range(10):
        right = torch.nonzero((held_out.labels == digit) & (named == digit)).flatten()
        if len(right) == 0:
            raise SystemExit(f"the model names no held-out image of a {digit} right; train it longer")
        grey = torch.round(held_out.pixels[right[0], 0] * 255 / 16).to(torch.uint8)
        image = Image.frombytes("L", (8, 8), bytes(grey.flatten().tolist()))
        image.resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.NEAREST).save(folder / f"{digit}.png", optimize=True)


def write_archive(folder: Path, archive: Path) -> None:
    """Pack the files of ``folder`` in torch-model-archiver's layout, replacing ``archive``."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as mar:
        contents = {name: (folder / name).read_bytes() for name in ARCHIVED_FILES}
        contents["MAR-INF/MANIFEST.json"] = json.dumps(MANIFEST, indent=2).encode()
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, FILE_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            mar.writestr(entry, content)
    print(f"wrote {archive.name}: {archive.stat().st_size} bytes")


def main() -> None:
    """Train, write everything, and print the held-out accuracy."""
    parser = argparse.ArgumentParser(description="Train the sample model and pack its archive.")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training images (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and shifts (default: 0)")
    parser.add_argument("--archive-only", action="store_true", help="do not train; pack the files that are there")
    options = parser.parse_args()

    if not options.archive_only:
        torch.set_num_threads(1)
        digits, held_out = load_split()
        print(f"{len(digits.labels)} training images, {len(held_out.labels)} held out")
        model = train(digits, epochs=options.epochs, seed=options.seed)
        correct, total = count_correct(model, held_out), len(held_out.labels)
        print(f"held-out accuracy: {100 * correct / total:.2f} % ({correct} of {total} images)")
        torch.save(model.state_dict(), FOLDER / "digits.pt")
        write_samples(model, held_out, FOLDER / "samples")
    write_archive(FOLDER, ARCHIVE)


if __name__ == "__main__":
    main()
