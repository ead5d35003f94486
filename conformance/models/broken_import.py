"""Cannot be loaded."""

import no_such_module_anywhere


class Broken:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [no_such_module_anywhere]
