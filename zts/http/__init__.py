"""REST in, jobs out: the HTTP server process. Layer 3 unless a module says otherwise. No torch.

``app`` routes, ``exchange`` is one request and its response, ``fast_path`` answers what was seen before; the rest is in
rooms: ``http1``, ``listen``, ``link``, ``api``.
"""
