"""``zts start``: start, watch, restart and stop the roles of one host. Layer 3 unless a module says otherwise.

Read ``core.py`` first, then ``loop.py``.
"""
