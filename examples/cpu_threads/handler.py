"""Multiply two matrices, and tell with how many threads."""

import os

import torch


class MultiplyHandler:
    def initialize(self, context):
        threads = context.model_yaml_config.get("handler", {}).get("torch_threads")
        if threads:
            torch.set_num_threads(threads)  # of this model's workers; stronger than all other settings

    def handle(self, data, context):
        product = torch.ones(256, 256) @ torch.ones(256, 256)
        answer = {
            "sum": product.sum().item(),
            "torch_threads": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        }
        return [answer for _ in data]
