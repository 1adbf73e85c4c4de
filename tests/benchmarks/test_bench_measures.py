"""The figures: from a scripted stream to a summary, with values worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.measures import (
    Outcome,
    Record,
    Slo,
    Spread,
    StreamError,
    Summary,
    Transcript,
    percentile,
    summarise,
)
from benchmarks.report import TOKENS, TTFT, print_table, ratio, ratios


def chunk(text: str) -> bytes:
    return b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % text.encode()


FINISH = b'{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}]}'


def record(
    *times: float,
    outcome: Outcome = "completed",
    tokens: int | None = None,
    ended: float = 1.0,
    asked: int = 0,
    error: str = "",
) -> Record:
    return Record(
        outcome=outcome,
        started=0.0,
        ended=ended,
        times=times,
        tokens=len(times) if tokens is None else tokens,
        asked=asked,
        error=error,
    )


def summary(*records: Record, duration: float = 2.0, slo: Slo | None = None) -> Summary:
    return summarise(records, duration=duration, client_cpu_seconds=0.5, slo=slo or Slo())


def test_a_transcript_counts_pieces_of_text_and_ignores_empty_ones() -> None:
    transcript = Transcript()
    transcript.feed(0.5, b'{"choices":[{"delta":{"role":"assistant","content":""}}]}')
    transcript.feed(1.0, chunk("one"))
    transcript.feed(1.5, chunk(" two"))
    transcript.feed(1.6, FINISH)
    assert (transcript.text, transcript.times) == ("one two", [1.0, 1.5])
    assert (transcript.finish_reason, transcript.finished_at) == ("length", 1.6)
    assert transcript.num_tokens == 2
    assert not transcript.is_done


def test_the_servers_own_count_of_tokens_wins() -> None:
    transcript = Transcript()
    transcript.feed(1.0, chunk("one two three"))
    transcript.feed(1.1, b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}')
    transcript.feed(1.1, b"[DONE]")
    assert transcript.num_tokens == 3
    assert transcript.is_done


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_text_too(field: str) -> None:
    transcript = Transcript()
    transcript.feed(1.0, b'{"choices":[{"delta":{"%s":"hm"}}]}' % field.encode())
    assert transcript.text == "hm"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"error": {"message": "out of memory"}}',
        b'{"error": "out of memory"}',
        b'{"error": "a "quote" that is not escaped"}',
        b'{"error_type": "overloaded"}',
        b"not JSON",
    ],
)
def test_an_error_event_is_an_error(payload: bytes) -> None:
    with pytest.raises(StreamError):
        Transcript().feed(1.0, payload)


def test_a_null_error_is_none() -> None:
    Transcript().feed(1.0, b'{"choices":[],"error":null}')


def test_the_times_of_a_request() -> None:
    request = record(0.2, 0.3, 0.5, tokens=4, ended=0.6)
    assert request.ttft == pytest.approx(0.2)
    assert request.gaps == pytest.approx([0.1, 0.2])
    assert request.tpot == pytest.approx(0.1)
    assert request.latency == pytest.approx(0.6)


def test_one_token_has_no_time_per_token() -> None:
    assert record(0.2).tpot is None
    assert record().ttft is None


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == pytest.approx(2.5)
    assert percentile([7.0], 99) == 7.0
    assert percentile(list(map(float, range(101))), 99) == pytest.approx(99.0)


def test_a_summary_of_completed_cancelled_and_failed_requests() -> None:
    figures = summary(
        record(0.1, 0.2, 0.3, asked=3, ended=0.4),
        record(0.3, 0.4, asked=3, ended=0.6),
        record(0.2, 0.5, outcome="cancelled"),
        record(0.9, outcome="failed", error="cut"),
    )
    assert (figures.completed, figures.cancelled, figures.failed, figures.short) == (2, 1, 1, 1)
    assert figures.output_tokens == 7
    assert figures.tokens_per_s == pytest.approx(3.5)
    assert figures.requests_per_s == pytest.approx(1.0)
    assert figures.ttft_ms.p50 == pytest.approx(200)
    assert figures.itl_ms.mean == pytest.approx(150)
    assert figures.latency_ms.p50 == pytest.approx(500)
    assert figures.client_cpu == pytest.approx(0.25)
    assert figures.errors == {"cut": 1}


def test_goodput_asks_for_both_limits() -> None:
    good, late, slow = record(0.1, 0.15), record(1.1, 1.15), record(0.1, 0.5)
    figures = summary(good, late, slow, slo=Slo(ttft_ms=1000, tpot_ms=100))
    assert figures.goodput_per_s == pytest.approx(0.5)


def test_nothing_measured_is_no_figure() -> None:
    assert summary(record(outcome="failed", error="refused")).ttft_ms == Spread(None, None, None)


def test_ratios_are_above_one_where_the_first_server_is_better() -> None:
    fast = [summary(record(0.1, 0.2))]
    slow = [summary(record(0.2, 0.3), duration=4.0)]
    assert ratio(TOKENS, fast, slow) == pytest.approx(2.0)
    assert ratio(TTFT, fast, slow) == pytest.approx(2.0)
    assert ratio(TTFT, fast, [summary()]) is None
    (entry,) = ratios([("ours", "c1", fast), ("peer", "c1", slow)], first="ours")
    assert (entry["against"], entry["tok/s"]) == ("peer", pytest.approx(2.0))


def test_the_table_names_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    failed = record(outcome="failed", error="HTTP 429: overloaded")
    print_table([("ours", "c1", [summary(record(0.1, 0.2, asked=3), failed)])])
    shown = capsys.readouterr().out
    assert "1/0/1" in shown
    assert "1 x HTTP 429: overloaded" in shown
    assert "1 answers were shorter" in shown
