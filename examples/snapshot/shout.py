"""Answers in capitals."""


def handle(data, context):
    if data is None:  # the call in which a handler loads its model
        return None
    return [row["body"].upper() for row in data]
