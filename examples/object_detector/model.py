"""The network; the archiver's --model-file. It answers what torchvision's detectors answer."""

import torch
from torch import nn
from torch.nn.functional import max_pool2d


class CoinsAndBoxes(nn.Module):
    """Find coins and boxes by their centres.

    ``forward`` takes images as [N, 3, H, W] and answers one dict for each image: ``boxes`` [K, 4] as x1, y1, x2, y2 in
    pixels, ``labels`` [K], ``scores`` [K], the likeliest first.
    """

    stride = 4  # pixels of the image for one place of the maps
    most = 10  # boxes of one image

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=2, dilation=2),
            nn.ReLU(),
        )
        self.heads = nn.Conv2d(24, 5, 1)

    def maps(self, images):
        """Return for each place: is a centre there [N, 1, …], of which class [N, 2, …], and how large [N, 2, …]."""
        return self.heads(self.trunk(images)).split([1, 2, 2], dim=1)

    def forward(self, images):
        centre, kind, size = self.maps(images)
        centre = centre.sigmoid()
        centre = centre * (max_pool2d(centre, 3, 1, 1) == centre)  # the best of neighbours only
        scores, labels = kind.softmax(1).max(1)
        return [self._boxes(*maps) for maps in zip(centre[:, 0] * scores, labels, size, strict=True)]

    def _boxes(self, scores, labels, size):
        best, places = scores.flatten().topk(self.most)
        y, x = places // scores.shape[1], places % scores.shape[1]
        centres = (torch.stack([x, y], dim=1) + 0.5) * self.stride
        half = size[:, y, x].T / 2
        return {"boxes": torch.cat([centres - half, centres + half], dim=1), "labels": labels[y, x], "scores": best}
