"""The network; the archiver's --model-file. Its arguments have defaults: the handler makes it without any."""

from torch import nn


class TopicNet(nn.Module):
    """Name a text's topic: its words' vectors are averaged, one linear layer does the rest.

    ``forward`` takes what the handler text_classifier makes of a batch: the indexes of all words of all texts in one
    tensor, and where each text begins in it.
    """

    def __init__(self, words=2000, classes=3):
        super().__init__()
        self.embedding = nn.EmbeddingBag(words, 16)
        self.classify = nn.Linear(16, classes)

    def forward(self, indexes, offsets):
        return self.classify(self.embedding(indexes, offsets))
