"""``zts start``: starts, watches, restarts and stops the roles of one host. Start with ``core.py``, then ``loop.py``."""
