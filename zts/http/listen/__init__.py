"""Where and how the HTTP server listens: addresses, TLS, acceptors, Tornado's server. Layer 3 unless stated.

``servers`` puts it together. What is served is in ``zts.http.app`` and ``zts.http.api``.
"""
