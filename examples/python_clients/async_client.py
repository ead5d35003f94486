"""Ask from asyncio: a hundred queries in flight on one connection, answers as they come, and a limit of time."""

import asyncio

import numpy as np

import zts

vectors = np.load("made/vectors.npy")


async def main():
    async with zts.AsyncClient() as client:
        answers = await asyncio.gather(*(client.predict("nearest", vector) for vector in vectors[:100]))
        print("all:", len(answers), "answers, the last is", answers[-1]["index"])

        async def ask(number):
            return number, await client.predict("nearest", vectors[number], timeout_s=5)

        found = 0
        for task in asyncio.as_completed([ask(number) for number in range(100)]):
            number, answer = await task
            found += answer["index"][0] == number
        print("as they came:", found, "right")


asyncio.run(main())
