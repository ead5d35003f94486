"""Metrics by TorchServe's names and rules: definitions, workers' lines, sums, Prometheus text. Layer 1."""
