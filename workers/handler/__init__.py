"""What stands between a job and the model's code. Layer 3 unless a module says otherwise.

Finds and loads the handler, turns jobs into the rows that it expects and what it returns into results. There is no
ZeroMQ here: a ``Service`` is called with items and returns results.
"""
