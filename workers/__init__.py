"""Workers: imported as ``zts.workers`` only."""

if __name__ != "zts.workers":
    # As a top-level name it would shadow, or be shadowed by, a model archive's own workers.py.
    raise ImportError("import this package as zts.workers, not as workers")
