"""Tells where the event loop of an asynchronous handler runs."""

import asyncio
import signal
import threading


class ProcessAsync:
    def initialize(self, context):
        self.first = asyncio.get_event_loop()
        self.ran = asyncio.Event()
        self.started = self.first.create_task(self.run())

    async def run(self):
        self.ran.set()

    async def handle(self, data, context):
        return [await getattr(self, bytes(row.get("body") or row.get("data")).decode())() for row in data]

    async def thread(self):
        return str(threading.current_thread() is threading.main_thread())

    async def loop(self):
        return str(asyncio.get_running_loop() is self.first)

    async def task(self):
        await asyncio.wait_for(self.ran.wait(), 10)
        return "it ran"

    async def signal(self):
        rung = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, rung.set)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        await asyncio.wait_for(rung.wait(), 10)
        return "it rang"

    async def program(self):
        started = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
        return (await started.communicate())[0]
