"""Ask the sample model from asyncio: a hundred requests in flight on one socket.

Start zts first (make serve), then: python examples/async_client.py
"""

import asyncio
from pathlib import Path

import zts

SAMPLE = Path(__file__).parent.parent / "model_store" / "digits" / "samples" / "7.png"


async def main() -> None:
    image = SAMPLE.read_bytes()
    async with zts.AsyncClient() as client:
        answers = await asyncio.gather(*(client.predict("digits", image, timeout_s=10) for _ in range(100)))
        print(len(answers), "answers; the first:", answers[0])


if __name__ == "__main__":
    asyncio.run(main())
