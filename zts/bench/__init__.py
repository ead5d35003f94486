"""A closed-loop load generator: a fixed number of requests in flight, each answered one replaced at once. Layer 3."""
