"""A pipeline of Hugging Face's transformers; the texts of a batch go through it together."""

from transformers import pipeline

import zts


class Sentiment(zts.Handler):
    def load(self, context):
        properties = context.system_properties
        gpu = properties["gpu_id"]
        # save_pretrained's files are in the archive, so nothing is downloaded.
        self.pipeline = pipeline(
            "text-classification", model=properties["model_dir"], device=-1 if gpu is None else int(gpu)
        )

    def predict(self, inputs):
        # A body is text or bytes, as its content type says.
        texts = [item if isinstance(item, str) else bytes(item).decode() for item in inputs]
        return self.pipeline(texts, batch_size=len(texts), truncation=True)
