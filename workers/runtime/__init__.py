"""The worker process: its sockets, threads and batches. Layer 3 unless a module says otherwise.

Two cores decide (``compute_core`` about jobs and batches, ``presence`` about HELLO, beats and states), two threads
wait. What a handler is and what it may return is not known here, but in ``handler``.
"""
