"""Answers with the body."""


def handle(data, context):
    if data is None:
        return None
    return [row.get("body") or row.get("data") for row in data]
