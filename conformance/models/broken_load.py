"""Fails in initialize, as its model-config.yaml says."""


class BrokenLoad:
    def initialize(self, context):
        kind = context.model_yaml_config.get("fail", "runtime")
        raise {"runtime": RuntimeError, "memory": MemoryError, "value": ValueError}[kind]("cannot load")

    def handle(self, data, context):
        return [b""]
