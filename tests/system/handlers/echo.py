"""Answers each row's body; no torch."""


def handle(data, context):
    if data is None:
        return None
    return [row.get("body", row.get("data", b"")) for row in data]
