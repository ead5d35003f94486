"""Broker: imported as ``zts.broker`` only."""

if __name__ != "zts.broker":
    # As a top-level name it would shadow, or be shadowed by, a model archive's own broker.py.
    raise ImportError("import this package as zts.broker, not as broker")
