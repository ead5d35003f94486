"""Measures zts beside its peers and bare loops and prints which goals of speed are reached: ``make compare``."""
