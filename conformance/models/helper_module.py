"""An extra file of the configured model."""

VALUE = 41 + 1
