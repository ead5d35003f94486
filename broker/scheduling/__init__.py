"""Which worker gets which job: one pure core in parts. Layer 2 unless a module says otherwise.

``scheduler.Scheduler`` takes all events. Models come and go here as the ``fleet`` decides.
"""
