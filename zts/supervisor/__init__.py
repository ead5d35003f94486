"""``zts start``: start, watch, restart and stop the roles of one host. Read ``core.py`` first, then ``loop.py``."""
