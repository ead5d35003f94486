"""Function style: called once with None to initialise."""

CALLS = []


def handle(data, context):
    CALLS.append(data is None)
    if data is None:
        return None
    return [f"handle {CALLS} {bytes(row.get('body') or b'').decode()}" for row in data]


def entry(data, context):
    if data is None:
        CALLS.append("loaded by entry")
        return None
    return [{"entry": CALLS, "count": len(data)} for row in data]
