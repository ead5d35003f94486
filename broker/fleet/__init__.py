"""Which models should exist and which workers live: one pure core in parts. Layer 2 unless a module says otherwise.

``core.Fleet`` takes all events. Jobs are not known here, but in ``scheduling``; sockets in neither.
"""
