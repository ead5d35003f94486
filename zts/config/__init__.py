"""Configuration: keys, files, flags, environment, snapshots → ``Settings``. Layer 3 unless a module says otherwise.

``keys`` has the table of keys, ``resolve`` puts all sources together. The record itself is ``zts.settings``.
"""
