"""Learn three topics from made-up headlines, and write weights and vocabulary to made/."""

import itertools
import random
from pathlib import Path

import torch
from model import TopicNet

SENTENCES = [
    # For each topic: who, does what, with what.
    (
        "the striker|the coach|our team|the young sprinter|the goalkeeper",
        "wins|loses|celebrates|trains for|scores in",
        "the final match|the cup|a second goal|the season opener|the championship race",
    ),
    (
        "the bank|a large investor|the central bank|the company|wall street",
        "raises|buys|sells|fears|expects",
        "interest rates|more shares|a quarterly profit|new debt|falling stock prices",
    ),
    (
        "a research team|the physicist|the new telescope|a biologist|the lab",
        "discovers|observes|measures|explains|publishes",
        "a distant galaxy|rare proteins|the quantum effect|a new species|dna sequences",
    ),
]


def headline(topic):
    return " ".join(random.choice(part.split("|")) for part in SENTENCES[topic])


def words_of(text):
    """Return words and pairs of words, as the handler makes them; it also cleans the text before that."""
    words = text.split()
    return words + [" ".join(pair) for pair in itertools.pairwise(words)]


random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
topics = [random.randrange(3) for _ in range(300)]
texts = [words_of(headline(topic)) for topic in topics]

# Index 0 is for words that are not in the vocabulary.
vocabulary = {"<unk>": 0}
for text in texts:
    for word in text:
        vocabulary.setdefault(word, len(vocabulary))

model = TopicNet()
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
indexes = torch.tensor([vocabulary[word] for text in texts for word in text])
offsets = torch.tensor([0, *map(len, texts[:-1])]).cumsum(0)
for _ in range(40):
    loss = torch.nn.functional.cross_entropy(model(indexes, offsets), torch.tensor(topics))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

Path("made").mkdir(exist_ok=True)
torch.save(model.state_dict(), "made/topics.pt")
torch.save(vocabulary, "made/source_vocab.pt")
