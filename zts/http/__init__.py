"""REST in, jobs out: the inference, management and metrics APIs on Tornado, and the link to the broker. No torch."""
