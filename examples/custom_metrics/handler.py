"""Count words, and record what an operator wants to see of it."""

from ts.metrics.metric_type_enum import MetricTypes


class WordCounter:
    def initialize(self, context):
        # These two stand in metrics.yaml, with their units and dimensions.
        self.words = context.metrics.get_metric("WordsCounted", MetricTypes.COUNTER)
        self.length = context.metrics.get_metric("WordsInText", MetricTypes.HISTOGRAM)

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            text = row.get("data") or row.get("body") or b""
            words = (text if isinstance(text, str) else bytes(text).decode()).split()
            language = context.get_request_header(index, "X-Language") or "unknown"
            # The values of the dimensions, in the order of metrics.yaml.
            self.words.add_or_update(len(words), [context.model_name, language])
            self.length.add_or_update(len(words), [context.model_name])
            answers.append({"words": len(words)})
        # The short way, for a gauge with the dimensions that every model's metric has.
        context.metrics.add_metric("BatchFill", len(data), unit="count", metric_type=MetricTypes.GAUGE)
        return answers
