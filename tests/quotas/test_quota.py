"""How much one key may ask for: requests, tokens and answers at once, by a clock of the test's."""

from __future__ import annotations

import random

import pytest

from millstream.errors import ContextTooLong, InvalidRequest, RateLimited
from millstream.quotas.bucket import TokenBucket
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import GUESSED_ANSWER, Meter, Quota
from tests.quotas.conftest import Clock, MakeQuota, life, request


def admit(quota: Quota) -> Meter:
    (meter,) = quota.admit(1, param="n")
    return meter


def test_a_minutes_requests_may_come_at_once_and_then_as_they_become_free(
    quota: MakeQuota, clock: Clock
) -> None:
    one = quota(requests_per_minute=30)
    for _ in range(30):
        admit(one)
    with pytest.raises(RateLimited, match="30 requests per minute") as refused:
        admit(one)
    assert (refused.value.status, refused.value.type) == (429, "requests")
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.retry_after == 2
    clock.now += 1.9
    with pytest.raises(RateLimited):
        admit(one)
    clock.now += 0.2
    admit(one)
    assert one.counts.refused["requests"] == 2
    assert one.counts.num_requests == 31


def refusal(quota: Quota, *, prompt: int, max_tokens: int) -> RateLimited | None:
    """What a request is told that is let in or not, and whose answer has twice the tokens."""
    try:
        meter = admit(quota)
    except RateLimited as error:
        return error
    try:
        meter.begin(request(prompt=prompt, max_tokens=max_tokens))
    except RateLimited as error:
        meter.end(life(prompt=prompt, has_run=False))
        return error
    meter.end(life(prompt=prompt, generated=2 * max_tokens))
    return None


def test_whoever_waits_as_long_as_told_is_let_in(quota: MakeQuota, clock: Clock) -> None:
    draws, one, num_refused = random.Random(7), quota(tokens_per_minute=500), 0
    for _ in range(300):
        size, answer = draws.randrange(1, 400), draws.randrange(1, 400)
        refused = refusal(one, prompt=size, max_tokens=answer)
        for _ in range(2):  # once for the debt, and once for what it needs itself
            if refused is not None:
                num_refused += 1
                assert refused.retry_after is not None
                clock.now += refused.retry_after
                refused = refusal(one, prompt=size, max_tokens=answer)
        assert refused is None
    assert num_refused > 100


def test_no_more_is_used_in_many_minutes_than_the_limit(quota: MakeQuota, clock: Clock) -> None:
    draws = random.Random(3)
    one, used, began = quota(tokens_per_minute=1000), 0, clock.now
    while clock.now < began + 60 * 60:
        clock.now += draws.random()
        try:
            meter = admit(one)
        except RateLimited:
            continue
        size, answer = draws.randrange(1, 900), draws.randrange(1, 3000)
        try:
            meter.begin(request(prompt=size, max_tokens=5000))
        except RateLimited:
            meter.end(life(prompt=0, has_run=False))
            continue
        cached = draws.randrange(size)
        meter.end(life(prompt=size, cached=cached, generated=answer))
        used += size - cached + answer
    # The first minute's worth was there from the start, and one answer may be longer than guessed.
    assert used <= 1000 * 61 + 3000
    assert used >= 1000 * 55


def test_an_answer_costs_what_was_computed(quota: MakeQuota) -> None:
    one = quota(tokens_per_minute=1000)

    def left() -> int:
        assert one.tokens is not None
        return one.tokens.remaining

    meter = admit(one)
    meter.begin(request(prompt=100, max_tokens=5000))
    assert left() == 1000 - 100 - GUESSED_ANSWER
    meter.end(life(prompt=100, cached=80, generated=30))
    assert left() == 1000 - 20 - 30
    assert (one.counts.num_prompt, one.counts.num_cached, one.counts.num_generated) == (100, 80, 30)

    short = admit(one)
    short.begin(request(prompt=100, max_tokens=7))
    assert left() == 950 - 107
    short.end(life(prompt=100, has_run=False))
    assert left() == 950, "what never ran costs nothing"

    left_early = admit(one)
    left_early.begin(request(prompt=100, max_tokens=7))
    left_early.end(life(prompt=100))
    assert left() == 850, "a prompt that was computed costs, though its client has left"


def test_further_answers_to_a_prompt_do_not_pay_for_it(quota: MakeQuota) -> None:
    one = quota(tokens_per_minute=1000)
    first, second = one.admit(2, param="n")
    first.begin(request(prompt=100, max_tokens=5))
    second.begin(request(prompt=100, max_tokens=5, follows=1))
    first.end(life(prompt=100, generated=5))
    second.end(life(prompt=100, cached=96, generated=5, is_leader=False))
    assert one.tokens is not None
    assert one.tokens.remaining == 1000 - 110
    assert (one.counts.num_requests, one.counts.num_cached) == (1, 0)


def test_a_long_answer_is_not_broken_off_and_the_next_one_waits(
    quota: MakeQuota, clock: Clock
) -> None:
    one = quota(tokens_per_minute=600)
    meter = admit(one)
    meter.begin(request(prompt=10, max_tokens=5000))
    meter.end(life(prompt=10, generated=890))
    with pytest.raises(RateLimited, match="tokens per minute") as refused:
        admit(one)
    assert refused.value.type == "tokens"
    assert refused.value.retry_after == 31  # 300 too many, and one to begin with
    clock.now += 31
    admit(one)


def test_a_prompt_that_never_fits_is_too_long_and_not_to_be_tried_again(quota: MakeQuota) -> None:
    one = quota(tokens_per_minute=600)
    meter = admit(one)
    with pytest.raises(ContextTooLong, match="601 tokens") as refused:
        meter.begin(request(prompt=601))
    assert (refused.value.num_tokens, refused.value.limit) == (601, 600)
    meter.begin(request(prompt=600))


def test_answers_at_once(quota: MakeQuota) -> None:
    one = quota(max_concurrent_requests=3, requests_per_minute=10)
    first = one.admit(2, param="n")
    admit(one)
    with pytest.raises(RateLimited, match="3 answers at once") as refused:
        admit(one)
    assert refused.value.retry_after == 1
    first[0].end(life(prompt=10, generated=1))
    admit(one)
    with pytest.raises(InvalidRequest, match="may have 3 at once") as never:
        one.admit(4, param="n")
    assert never.value.param == "n"
    assert one.requests is not None
    assert one.requests.remaining == 7, "what was refused costs no request"


def test_answers_end_where_the_keys_may(quota: MakeQuota) -> None:
    one = quota(max_output_tokens=9)
    assert admit(one).begin(request(max_tokens=10)).max_tokens == 9
    assert admit(one).begin(request(max_tokens=8)).max_tokens == 8


def test_no_limits(quota: MakeQuota) -> None:
    one = quota()
    for _ in range(1000):
        admit(one).begin(request(prompt=1000, max_tokens=1000))
    assert (one.requests, one.tokens, one.counts.num_open) == (None, None, 1000)


def test_a_request_for_which_the_server_has_no_place_costs_nothing(quota: MakeQuota) -> None:
    one = quota(requests_per_minute=2, max_concurrent_requests=2)
    one.take_back(one.admit(2, param="n"))
    one.admit(2, param="n")
    assert (one.counts.num_requests, one.counts.num_open) == (1, 2)


def test_other_limits_do_not_forget_what_was_used(quota: MakeQuota) -> None:
    one = quota(requests_per_minute=10)
    for _ in range(8):
        admit(one)
    one.limits = KeyLimits(requests_per_minute=20)
    assert one.requests is not None
    assert one.requests.remaining == 12
    one.limits = KeyLimits(requests_per_minute=5)
    with pytest.raises(RateLimited):
        admit(one)
    one.limits = KeyLimits()
    admit(one)


def test_when_a_bucket_is_full_again() -> None:
    bucket = TokenBucket.full(60)
    bucket.take(45)
    assert bucket.seconds_until(60) == 45
    bucket.fill(1000)
    assert (bucket.level, bucket.seconds_until(60)) == (60, 0)
    bucket.take(-5)
    assert bucket.level == 60
