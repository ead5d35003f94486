"""Shows what an envelope hands over; numbers come back doubled."""

import numpy as np


def handle(data, context):
    if data is None:
        return None
    return [item * 2 if isinstance(item, np.ndarray) else {"seen": [type(item).__name__, repr(item)]} for item in data]
