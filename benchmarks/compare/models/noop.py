"""Answers without looking."""


def handle(data, context):
    if data is None:
        return None
    return [b"ok"] * len(data)
