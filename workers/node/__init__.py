"""The node agent, one process on each host. Layer 3 unless a module says otherwise.

It fetches and unpacks archives, builds their environments, starts workers, watches and restarts them, and reports to
the broker. Nothing here runs or imports a model's code, nor anything of ``runtime`` or ``handler``; what the agent
gives a worker at its start is in ``zts.workers.options``, what a worker's end means in ``zts.workers.exit_codes``.
"""
