"""Handler of the sample model ``digits``: an image file or a list of pixels in, class probabilities out.

Loading, inference and the answer ``{label: probability}`` are those of the
image classifier; only the way from a request to pixels is our own.
"""

import base64
import binascii
import io
from typing import Any

import torch
from PIL import Image
from ts.torch_handler.image_classifier import ImageClassifier
from ts.utils.util import PredictionException

SIDE = 8
FULL_INK = 16
# A sample has 64x64 pixels and a photo a few million; a small file can claim far more, which costs memory to open.
MAX_PIXELS = 16_000_000


class DigitsHandler(ImageClassifier):
    """Classify handwritten digits, light ink on dark paper, and answer the five likeliest."""

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        """Turn one batch of requests into the network's input.

        Args:
            data: One dict for each request, with its content under ``data`` or ``body``:
                an image file (bytes), one in base64 (str), or 8 rows of 8 pixel
                values from 0 to 16 (list).

        Returns:
            Float tensor [N, 1, 8, 8] on the handler's device, in the order of ``data``.

        Raises:
            PredictionException: Status 400, if a request holds neither an image nor 8x8 pixels.
        """
        images = []
        for row in data:
            content = row.get("data")
            if content is None:
                content = row.get("body")
            images.append(_to_pixels(content))
        return torch.stack(images).to(self.device)


def _to_pixels(content: Any) -> torch.Tensor:
    """Return what one request holds as a float tensor [1, 8, 8] of values from 0 to 16."""
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise PredictionException("The text is not a base64-encoded image", 400) from error
    if isinstance(content, (bytes, bytearray, memoryview)):
        return _decode_image(bytes(content))
    if isinstance(content, list):
        return _check_list(content)
    raise PredictionException("Send an image file, or a list of 8 rows of 8 pixel values from 0 to 16", 400)


def _decode_image(content: bytes) -> torch.Tensor:
    """Return an image file as pixels: grey, shrunk or enlarged to 8x8, in 17 steps of ink."""
    if not content:
        raise PredictionException("The request is empty; send an image file", 400)
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            too_large = width * height > MAX_PIXELS
            if not too_large:
                grey = image.convert("L")
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to.
        raise PredictionException("The request is not an image that can be read", 400) from error
    if too_large:
        raise PredictionException(f"The image has {width}x{height} pixels; at most {MAX_PIXELS} are read", 400)
    if grey.size != (SIDE, SIDE):
        # The mean over a box is how the data set was made from larger bitmaps; it also undoes an exact enlargement.
        grey = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = torch.tensor(list(grey.tobytes()), dtype=torch.float32).reshape(1, SIDE, SIDE)
    # Rounded because the data set has whole steps of ink only.
    return torch.round(pixels * FULL_INK / 255.0)


def _check_list(values: list[Any]) -> torch.Tensor:
    """Return a list of 8x8 pixel values, or of 64 in one row, as pixels."""
    try:
        pixels = torch.tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise PredictionException("The list is not 8 rows of 8 numbers", 400) from error
    if tuple(pixels.shape) not in {(SIDE, SIDE), (1, SIDE, SIDE), (SIDE * SIDE,)}:
        raise PredictionException(f"The list has shape {list(pixels.shape)}; 8 rows of 8 numbers are needed", 400)
    # Written so that NaN fails the comparison, too.
    if not bool(((pixels >= 0) & (pixels <= FULL_INK)).all()):
        raise PredictionException("A pixel value is not in the range from 0 to 16", 400)
    return pixels.reshape(1, SIDE, SIDE)
