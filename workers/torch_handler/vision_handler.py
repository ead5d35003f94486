"""``VisionHandler``: images in; the base of the classifier, the segmenter and the detector."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any

import torch

from zts.workers.handler.results import PredictionException
from zts.workers.torch_handler.base_handler import BaseHandler, payload_of
from zts.workers.torch_handler.image_transforms import Chain, to_tensor
from zts.workers.ts_compat.timer import timed

__all__ = ["VisionHandler"]

_INSIGHT_STEPS = 15
_LIMIT_WORDS = "limit_max_image_pixels=false in the server's configuration lifts the limit"


class VisionHandler(BaseHandler):
    """Turn each row's image into a tensor by ``image_processing`` and stack them.

    A subclass sets ``image_processing`` (on the class or the object) to a callable from a Pillow image to a tensor.
    """

    image_processing: Any = Chain([to_tensor])

    def initialize(self, context: Any) -> None:
        """Load the model; lift Pillow's limit of pixels where the configuration says so."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            from PIL import Image

            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: Any) -> Any:
        """Return the rows' images as one tensor on the device.

        Each row has, under ``data`` or ``body``, an image file (bytes), one in base64 (str), or a tensor's values
        (list, array or tensor).

        Raises:
            PredictionException: Status 400, if a row holds no image that can be read.
        """
        images = [self._image_tensor(row, self.image_processing) for row in data]
        return torch.stack(images).to(self.device)

    def get_insights(self, tensor_data: Any, _: Any = None, target: Any = 0) -> Any:
        """Return integrated gradients of each image's pixels for class ``target``; needs the package captum."""
        from captum.attr import IntegratedGradients

        method = IntegratedGradients(self.model)
        gradients = method.attribute(tensor_data, target=target, n_steps=_INSIGHT_STEPS)
        return gradients.tolist()

    @staticmethod
    def _image_tensor(row: Any, transform: Any) -> Any:
        content = payload_of(row)
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=False)
            except ValueError as exc:
                raise PredictionException("The text is not a base64-encoded image", 400) from exc
        if isinstance(content, (bytes, bytearray, memoryview)):
            return transform(_opened(bytes(content)))
        try:
            # As TorchServe: values become float32, whatever they were.
            return torch.as_tensor(content, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as exc:
            raise PredictionException("The request holds neither an image nor an array of numbers", 400) from exc


def _opened(content: bytes) -> Any:
    """Return an image file decoded.

    A file of some kilobytes can say that it has any number of pixels, each of which takes memory. Pillow's bound of
    pixels holds before they are decoded, as it is set in this process: ``Image.MAX_IMAGE_PIXELS``, None for no bound.

    Raises:
        PredictionException: Status 400, if it cannot be, or has too many pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow's own warning comes between the bound and twice of it; the bound is looked at below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        _check_pixels(image)
        image.load()
    except Image.DecompressionBombError as exc:
        raise PredictionException(f"The request is an image of too many pixels ({exc}); {_LIMIT_WORDS}", 400) from exc
    except PredictionException:
        raise
    except MemoryError:
        raise
    except Exception as exc:  # Pillow's decoders raise whatever a broken file leads them to.
        raise PredictionException("The request is not an image that can be read", 400) from exc
    return image


def _check_pixels(image: Any) -> None:
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    width, height = image.size
    if most is not None and width * height > most:
        raise PredictionException(
            f"The request is an image of {width} x {height} pixels, of which {most} are allowed; {_LIMIT_WORDS}", 400
        )
