"""Greet by a package that only this model's workers have."""

from importlib.metadata import version

import greeting

import zts


class Greeter(zts.Handler):
    def predict(self, inputs):
        names = [item if isinstance(item, str) else bytes(item).decode().strip() for item in inputs]
        return [{"text": greeting.greet(name), "package": f"greeting {version('greeting')}"} for name in names]
