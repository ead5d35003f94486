"""An image file to the tensor that ImageNet models want, with Pillow and torch only.

The numbers are those of torchvision's Resize, CenterCrop, ToTensor and Normalize on a Pillow image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from zts.workers.handler.results import PredictionException

__all__ = ["Chain", "center_cropped", "classifier_transform", "resized", "to_rgb", "to_tensor"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Chain:
    """Calls its steps one after the other."""

    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(steps)

    def __call__(self, image: Any) -> Any:
        """Return ``image`` after all steps."""
        for step in self.transforms:
            image = step(image)
        return image


def classifier_transform(resize: int = 256, crop: int = 224) -> Chain:
    """Return the transform of ImageNet classifiers: float tensor [3, crop, crop], normalised."""
    return Chain(
        [
            to_rgb,
            lambda image: resized(image, resize),
            lambda image: center_cropped(image, crop),
            to_tensor,
            lambda pixels: normalised(pixels, IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def to_rgb(image: Any) -> Any:
    """Return ``image`` with three channels; grey is repeated, transparency dropped."""
    return image if image.mode == "RGB" else image.convert("RGB")


def resized(image: Any, shorter_side: int) -> Any:
    """Return ``image`` with its shorter side of that many pixels and the longer one in proportion.

    Raises:
        PredictionException: Status 400, if it would have more pixels than Pillow's bound: a line of 60,000 pixels,
            256 high, has 4 billion.
    """
    from PIL import Image

    width, height = image.size
    if min(width, height) == shorter_side:
        return image
    if width <= height:
        size = (shorter_side, int(shorter_side * height / width))
    else:
        size = (int(shorter_side * width / height), shorter_side)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise PredictionException(
            f"The request is an image of {width} x {height} pixels; {shorter_side} wide or high it would have "
            f"{size[0] * size[1]} pixels, of which {most} are allowed",
            400,
        )
    return image.resize(size, Image.Resampling.BILINEAR)


def center_cropped(image: Any, side: int) -> Any:
    """Return the middle ``side`` x ``side`` pixels, with black around where the image is smaller."""
    width, height = image.size
    left, top = _offset(width, side), _offset(height, side)
    return image.crop((left, top, left + side, top + side))


def _offset(length: int, side: int) -> int:
    # Rounded as torchvision rounds: half to even where it cuts, down where it pads.
    return round((length - side) / 2.0) if length >= side else -((side - length) // 2)


def to_tensor(image: Any) -> torch.Tensor:
    """Return an image as a float tensor [channels, height, width] of values from 0 to 1."""
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")  # the others are not 8 bits a channel, or indexes into a palette
    width, height = image.size
    channels = len(image.getbands())
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = flat.reshape(height, width, channels).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div_(255)


def normalised(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return ``pixels`` less ``mean``, divided by ``std``, for each channel."""
    shape = (-1, 1, 1)
    return (pixels - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
