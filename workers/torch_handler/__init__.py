"""Ready-made handlers, known to models as ``ts.torch_handler.…``. Layer 3. Each imports torch; not this package."""
