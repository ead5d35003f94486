"""Answer questions with the help of a slow service, and take the next ones while it thinks."""

from slow_service import SlowService


class QuestionHandler:
    def initialize(self, context):
        self.service = SlowService()
        self.calls = self.running = self.most = 0

    async def handle(self, data, context):
        # One call for each request (batchSize 1). All calls run in one thread: between two awaits nothing else does,
        # so that these numbers need no lock.
        question = data[0].get("body")
        if not question:
            return [{"calls": self.calls, "most_at_once": self.most}]
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return [{"question": question, "answer": await self.service.ask(question)}]
        finally:
            self.running -= 1
