"""Node agent, workers, handlers: imported as ``zts.workers`` only. Layer 3 unless a module says otherwise.

``node`` is one program, ``runtime`` with ``handler`` another; what both know stands here.
"""

if __name__ != "zts.workers":
    # As a top-level name it would shadow, or be shadowed by, a model archive's own workers.py.
    raise ImportError("import this package as zts.workers, not as workers")
