"""HTTP/1.1 on asyncio: reads requests, orders and writes responses, watches deadlines. Layer 3 unless stated.

It knows nothing of models, routes or keys, and imports nothing of zts but errors; whom it serves is a Tornado
``HTTPServerConnectionDelegate``.
"""
