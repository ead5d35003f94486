"""Send four houses at once, two of which the model cannot read, and print each one's answer."""

import sys

import zts

HOUSES = [{"area": 60, "rooms": 3}, {"area": "large"}, {"area": 120, "rooms": 5}, "a castle"]

with zts.Client() as client:
    for house, future in zip(HOUSES, client.submit_many(sys.argv[1], HOUSES), strict=True):
        try:
            print(house, "->", future.result())
        except zts.errors.ZtsError as error:
            print(house, "->", error.http_status, error)
