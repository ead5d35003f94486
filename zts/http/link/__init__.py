"""The HTTP server's way to the broker: over ZeroMQ, or by calls where both are one process. Layer 3 unless stated.

``interface`` is what the APIs know of it. Nothing here knows HTTP.
"""
