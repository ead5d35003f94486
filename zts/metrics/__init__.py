"""Metrics by TorchServe's names and rules (TORCHSERVE.md 3): definitions, the worker's lines, sums, Prometheus text."""
