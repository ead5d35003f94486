"""Broker: imported as ``zts.broker`` only. Layer 3 unless a module says otherwise.

Two pure cores, ``scheduling`` (jobs) and ``fleet`` (models, workers, nodes); ``service`` joins them to messages, the
rest reads and writes sockets.
"""

if __name__ != "zts.broker":
    # As a top-level name it would shadow, or be shadowed by, a model archive's own broker.py.
    raise ImportError("import this package as zts.broker, not as broker")
