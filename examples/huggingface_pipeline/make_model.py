"""Make a tiny DistilBERT with a tokenizer of its own, teach it two feelings, and save both to made/sentiment.

With a model of yours or of the hub two lines take the place of all this: from_pretrained(…) and save_pretrained(…).
"""

import random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

FOLDER = "made/sentiment"
FEELINGS = [
    ["boring", "awful", "terrible", "bad", "slow", "poor", "dull", "weak"],
    ["great", "lovely", "wonderful", "good", "bright", "rich", "fresh", "strong"],
]


def review(feeling):
    subject = random.choice(["film", "book", "play", "song", "show"])
    words = FEELINGS[feeling]
    return f"the {subject} is {random.choice(words)} and {random.choice(words)}{random.choice(['.', '!', ''])}"


random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
labels = [random.randrange(2) for _ in range(128)]
texts = [review(label) for label in labels]

# Only these words; the model learns that others, as "film", say nothing.
vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "is", "and", *FEELINGS[0], *FEELINGS[1]]
words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
words.normalizer = normalizers.Lowercase()
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64)

model = DistilBertForSequenceClassification(
    DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        n_layers=1,
        n_heads=2,
        dim=32,
        hidden_dim=64,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
)
batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for _ in range(25):
    loss = model(**batch, labels=torch.tensor(labels)).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

model.save_pretrained(FOLDER)
tokenizer.save_pretrained(FOLDER)
