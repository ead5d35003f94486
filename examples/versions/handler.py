"""Name the label whose words occur most often in a text; the words come with the archive."""

import json
from pathlib import Path

import zts


class Keywords(zts.Handler):
    def load(self, context):
        path = Path(context.system_properties["model_dir"], "keywords.json")
        self.words = {label: set(words.split()) for label, words in json.loads(path.read_text()).items()}
        self.version = context.manifest["model"]["modelVersion"]

    def predict(self, inputs):
        return [{"label": self.label_of(text), "version": self.version} for text in inputs]

    def label_of(self, text):
        words = text.lower().split()
        return max(self.words, key=lambda label: sum(word in self.words[label] for word in words))
