"""Reports metrics of every kind."""

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


class Counting:
    def initialize(self, context):
        context.metrics.add_metric_to_cache("CachedGauge", "count", ["Colour"], MetricTypes.GAUGE)

    def handle(self, data, context):
        metrics = context.metrics
        metrics.add_counter("MyCounter", 2)
        metrics.add_time("MyTime", 1.5, unit="ms")
        metrics.add_time("MySeconds", 2, idx=0, unit="s")
        metrics.add_size("MySize", 3, unit="kB")
        metrics.add_percent("MyPercent", 42.5)
        metrics.add_error("MyError", 1)
        metrics.add_metric("MyWords", 7, unit="words", dimensions=[Dimension("Language", "en")])
        metrics.add_metric("MyHistogram", 0.3, unit="s", metric_type=MetricTypes.HISTOGRAM)
        metrics.get_metric("CachedGauge", MetricTypes.GAUGE).add_or_update(5, ["red"])
        raised = []
        for call in (
            lambda: metrics.add_time("Wrong", 1, unit="days"),
            lambda: metrics.add_size("Wrong", 1, unit="pounds"),
            lambda: metrics.get_metric("Unknown"),
            lambda: metrics.add_metric_to_cache(5, "count"),
            lambda: metrics.get_metric("CachedGauge", MetricTypes.GAUGE).add_or_update(1, ["too", "many"]),
        ):
            try:
                call()
                raised.append("nothing")
            except Exception as exc:
                raised.append(type(exc).__name__)
        return [{"raised": raised}]
