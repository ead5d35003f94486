"""Stands for what your handler waits for: a model behind an API, a database, an engine with a queue of its own."""

import asyncio


class SlowService:
    async def ask(self, question):
        await asyncio.sleep(1)
        return f"Interesting: {question}"
