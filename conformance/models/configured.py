"""Shows its model-config.yaml, its extra files and its manifest."""

import os

import helper_module


class Configured:
    def initialize(self, context):
        self.model_dir = context.system_properties["model_dir"]
        self.manifest = context.manifest

    def handle(self, data, context):
        files = sorted(
            os.path.relpath(os.path.join(folder, name), self.model_dir)
            for folder, folders, names in os.walk(self.model_dir)
            for name in names
            if "__pycache__" not in folder
        )
        answer = {
            "yaml": context.model_yaml_config,
            "files": files,
            "helper": helper_module.VALUE,
            "manifest": self.manifest["model"],
            "runtime": self.manifest["runtime"],
            "batch": context.system_properties["batch_size"],
        }
        return [answer] * len(data)
