import random

from hypothesis import given
from hypothesis import strategies as st

from zts.backoff import Backoff, BackoffRule


def test_first_restart_comes_at_once_and_later_ones_double_up_to_the_cap() -> None:
    backoff = Backoff(BackoffRule(start_s=1.0, cap_s=5.0, jitter=0.0), random.Random(1))
    assert [backoff.next_delay_s(ran_s=0.0) for _ in range(6)] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.deaths == 6


def test_who_ran_stably_starts_anew() -> None:
    backoff = Backoff(BackoffRule(stable_s=60.0, jitter=0.0), random.Random(1))
    for _ in range(4):
        backoff.next_delay_s(ran_s=1.0)
    assert (backoff.next_delay_s(ran_s=60.0), backoff.deaths) == (0.0, 1)


@given(st.integers(0, 2**32), st.integers(2, 2000))
def test_jitter_only_shortens_and_by_its_share_at_most(seed: int, deaths: int) -> None:
    rule = BackoffRule(start_s=0.5, cap_s=30.0, jitter=0.2)
    backoff = Backoff(rule, random.Random(seed))
    last = 0.0
    for _ in range(deaths):
        last = backoff.next_delay_s(ran_s=0.0)
    full = min(30.0, 0.5 * 2.0 ** min(deaths - 2, 32))
    assert 0.8 * full <= last <= full
