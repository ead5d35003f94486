"""Answers each row's body; no torch."""


def handle(data, context):
    if data is None:
        return None
    return [bytes(row.get("body") or row.get("data") or b"") for row in data]
