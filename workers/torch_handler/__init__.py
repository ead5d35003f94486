"""Ready-made handlers, known to models as ``ts.torch_handler.…``. Each imports torch; this package does not."""
