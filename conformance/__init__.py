"""Sends the same requests to a real TorchServe and to zts and shows every difference (see README.md)."""
