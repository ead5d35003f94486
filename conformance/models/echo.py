"""Shows what a handler sees: each row's keys, types and values, and the request headers."""


class Echo:
    def initialize(self, context):
        self.calls = 0

    def handle(self, data, context):
        return [self.show(i, row, context) for i, row in enumerate(data)]

    def show(self, i, row, context):
        return {
            "row": {key: [type(value).__name__, repr(value)] for key, value in sorted(row.items())},
            "headers": dict(sorted(context.get_all_request_header(i).items(), key=lambda item: item[0])),
        }
