"""Direct clients: jobs straight to the broker over ZeroMQ, without HTTP in between. Layer 3.

``zts.Client`` for threads, ``zts.AsyncClient`` for asyncio, ``zts.client.direct.DirectClient`` for loops that count
microseconds; ``zts.client.control.ControlClient`` for management.
"""
