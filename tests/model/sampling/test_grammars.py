"""Answers follow their grammars token by token, whatever the logits, and change nobody else's."""

from __future__ import annotations

import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from millstream.core.plan import IMPOSSIBLE_TOKEN, Chunk
from millstream.core.request import Grammar, Request, SamplingParams
from millstream.model import build
from millstream.model.runner import ModelRunner
from millstream.model.sampling import grammars as module
from millstream.model.sampling.grammars import Grammars, Progress
from millstream.model.sampling.sampler import Sampler
from millstream.runtime.messages import Add, decode_to_engine, encode
from millstream.text.grammars.answer_formats import (
    choice_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
    without_forcing,
)
from millstream.text.grammars.call_grammar import calls_grammar
from millstream.text.parsing.detection import detect
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.output import parse_whole
from tests.fakes import Panic
from tests.model.sampling_cases import random_params
from tests.model.test_architectures import answers, make_runner
from tests.text.tool_writer import callable_tools, is_valid, random_tools, tokens_of

DEMO = Path(__file__).parents[3] / "server" / "millstream" / "demo" / "model"
TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
NUM_TOKENS = TOKENIZER.get_vocab_size()
VOCAB = NUM_TOKENS + 77  # models round up
STOPS = (2, 300)
THINK, THINK_END = 1528, 1529

PATTERNS = ["a", "(ab|cd){1,9}!", r"\d{1,20}\.\d{2}", "[ぁ-ん]{2,8}", "(😀|ü| the | answer)+x"]


def make_request(grammar: Grammar, request_id: int = 0, **options: Any) -> Request:
    sampling = SamplingParams(**({"temperature": 1.0, "seed": request_id} | options))
    return Request(
        id=request_id,
        prompt=(5, 6, 7),
        sampling=sampling,
        max_tokens=400,
        stop_token_ids=STOPS,
        grammar=grammar,
    )


def chunk_of(request: Request, history: list[int]) -> Chunk:
    return Chunk(request, history[-1:], len(history) - 1, [], history, is_last=True)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER.to_str)


def noise(rows: int, seed: int) -> torch.Tensor:
    """Random logits in which what must never come is the most probable."""
    logits = torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 2
    logits[:, NUM_TOKENS:] += 30
    logits[:, [0, 1, THINK, *STOPS]] += 20
    return logits


def run(sampler: Sampler, request: Request, *, limit: int = 400, seed: int = 0) -> list[int]:
    """The tokens of an answer, without the one that ended it."""
    history = list(request.prompt)
    for step in range(limit):
        (token,) = sampler.sample(noise(1, 1000 * seed + step), [chunk_of(request, history)])
        assert token >= 0, f"no token after {TOKENIZER.decode(history[3:])!r}"
        if token in STOPS:
            return history[3:]
        history.append(token)
    raise AssertionError(f"no end: {TOKENIZER.decode(history[3:])!r}")


def text_of(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens, skip_special_tokens=False)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.5])
def test_patterns(pattern: str, temperature: float, grammars: Grammars) -> None:
    grammar = Grammar(text=regex_grammar(pattern))
    request = make_request(grammar, temperature=temperature)
    for seed in range(3):
        text = text_of(run(Sampler(grammars), request, seed=seed))
        assert re.fullmatch(pattern, text), text


def test_choices(grammars: Grammars) -> None:
    choices = ["yes", "yesterday", 'say "hi"\\', "ü\n😀", "/x/"]
    grammar = Grammar(text=choice_grammar(choices))
    seen = {text_of(run(Sampler(grammars), make_request(grammar), seed=seed)) for seed in range(40)}
    assert seen == set(choices)


def random_schema(source: random.Random, depth: int = 2) -> tuple[dict[str, Any], Any]:
    """A schema whose values are short, and a function that says what is wrong with a value."""
    kind = source.choice(["object", "array", "anyOf"] * (depth > 0) + ["integer", "string", "enum"])
    if kind == "integer":
        low, high = source.randint(-50, 5), source.randint(6, 3000)
        schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
        return schema, lambda value: type(value) is int and low <= value <= high
    if kind == "string":
        size = source.randint(1, 8)
        schema = {"type": "string", "minLength": 1, "maxLength": size}
        return schema, lambda value: isinstance(value, str) and 1 <= len(value) <= size
    if kind == "enum":
        values = [None, True, 3, "ä b", ["x", {"y": 1}]]
        return {"enum": values}, lambda value: value in values
    inner = [random_schema(source, depth - 1) for _ in range(source.randint(1, 3))]
    if kind == "anyOf":
        schema = {"anyOf": [one for one, _ in inner]}
        return schema, lambda value: any(is_right(value) for _, is_right in inner)
    if kind == "array":
        schema = {"type": "array", "items": inner[0][0], "minItems": 1, "maxItems": 4}
        return (
            schema,
            lambda value: (
                isinstance(value, list) and 1 <= len(value) <= 4 and all(map(inner[0][1], value))
            ),
        )
    names = [f"p{index}" for index in range(len(inner))]
    required = names[: source.randint(0, len(names))]
    schema = {
        "type": "object",
        "properties": dict(zip(names, [one for one, _ in inner], strict=True)),
        "required": required,
        "additionalProperties": False,
    }
    checks = dict(zip(names, [is_right for _, is_right in inner], strict=True))
    return (
        schema,
        lambda value: (
            isinstance(value, dict)
            and set(required) <= set(value) <= set(names)
            and all(checks[name](item) for name, item in value.items())
        ),
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_schemas(seed: int, grammars: Grammars) -> None:
    source = random.Random(seed)
    schema, is_right = random_schema(source)
    grammar = Grammar(text=json_grammar(schema))
    request = make_request(grammar, temperature=source.choice([0.0, 1.5]))
    text = text_of(run(Sampler(grammars), request, seed=seed))
    assert is_right(json.loads(text)), (schema, text)


@pytest.mark.parametrize("seed", range(8))
def test_options_of_the_sampler_are_kept_within_the_grammar(seed: int, grammars: Grammars) -> None:
    params = replace(
        random_params(random.Random(seed), VOCAB), bad_words=(), allowed_token_ids=(), min_tokens=0
    )
    request = replace(make_request(Grammar(text=regex_grammar("(ab|cd){1,9}!"))), sampling=params)
    assert re.fullmatch("(ab|cd){1,9}!", text_of(run(Sampler(grammars), request, seed=seed)))


def test_neighbours_and_replay_change_nothing(grammars: Grammars) -> None:
    """Rows with and without a grammar, in one sampler or alone in a new one: the same tokens."""
    source = random.Random(5)
    texts = [regex_grammar(pattern) for pattern in PATTERNS] + [json_grammar({"type": "object"})]
    requests = [make_request(Grammar(text=text), index) for index, text in enumerate(texts)]
    requests += [
        replace(make_request(Grammar(text=texts[0]), 20 + i), grammar=None) for i in range(3)
    ]
    histories = [list(request.prompt) for request in requests]
    together = Sampler(grammars)
    for step in range(30):
        open_ = [i for i, history in enumerate(histories) if history[-1] not in STOPS]
        source.shuffle(open_)
        logits = noise(len(open_), step)
        chunks = [chunk_of(requests[i], histories[i]) for i in open_]
        tokens = together.sample(logits, chunks)
        fresh = Sampler(Grammars(TOKENIZER.to_str) if step % 10 == 0 else grammars)
        alone = [
            fresh.sample(logits[place : place + 1], [chunk_of(requests[i], list(histories[i]))])
            for place, i in enumerate(open_)
        ]
        assert [[token] for token in tokens] == alone
        for i, token in zip(open_, tokens, strict=True):
            histories[i].append(token)
    assert sum(history[-1] in STOPS for history in histories) > 3


def test_the_end_comes_exactly_where_it_may(grammars: Grammars) -> None:
    progress = grammars.progress(make_request(Grammar(text=regex_grammar("aa?"))), VOCAB)
    (a,) = TOKENIZER.encode("a").ids
    assert allowed(progress) == {a} and not progress.must_end  # noqa: PT018
    progress.advance([a])
    assert allowed(progress) == {a, *STOPS} and not progress.must_end  # noqa: PT018
    progress.advance([a])
    assert allowed(progress) == set(STOPS) and progress.must_end  # noqa: PT018


def allowed(progress: Progress) -> set[int]:
    return set(np.flatnonzero(~progress.forbidden).tolist())


def test_min_tokens_yields_to_a_complete_answer(grammars: Grammars) -> None:
    several = make_request(Grammar(text=regex_grammar("a{1,30}")), min_tokens=9)
    answer = run(Sampler(grammars), several)
    assert len(answer) >= 9
    one = make_request(Grammar(text=regex_grammar("x1")), min_tokens=9)
    assert text_of(run(Sampler(grammars), one)) == "x1"


def test_reasoning_comes_first(grammars: Grammars) -> None:
    text = regex_grammar("b")
    (b,) = TOKENIZER.encode("b").ids
    within = grammars.progress(make_request(Grammar(text=text, starts_after=THINK_END)), VOCAB)
    assert allowed(within) == set(range(VOCAB)) - set(STOPS)
    within.advance([b, b])
    within.advance([THINK_END])
    assert allowed(within) == {b}
    grammar = Grammar(text=text, starts_after=THINK_END, opens_with=THINK)
    before = grammars.progress(make_request(grammar), VOCAB)
    assert allowed(before) == {b, THINK}
    before.advance([THINK, b, THINK_END, b])
    assert allowed(before) == set(STOPS)
    at_once = grammars.progress(make_request(grammar), VOCAB)
    at_once.advance([b])
    assert allowed(at_once) == set(STOPS)


def test_reasoning_begins_with_the_first_token_only(grammars: Grammars) -> None:
    """Where its marker is an ordinary token, the form may contain it."""
    (a,), (b,) = TOKENIZER.encode("a").ids, TOKENIZER.encode("b").ids
    grammar = Grammar(text=regex_grammar("[ab]{2}c"), starts_after=a, opens_with=b)
    progress = grammars.progress(make_request(grammar), VOCAB)
    progress.advance([a, b])
    (c,) = TOKENIZER.encode("c").ids
    assert allowed(progress) == {c}
    progress = grammars.progress(make_request(grammar), VOCAB)
    progress.advance([b, b, b])
    assert len(allowed(progress)) > 1000
    progress.advance([a, b, b])
    assert allowed(progress) == {c}


@pytest.mark.parametrize("mark", ["<think>", "<tool_call>", "<|im_end|>"])
def test_text_that_reads_like_a_marker_is_text(mark: str, grammars: Grammars) -> None:
    """Spelled, because the token itself has no text; where no other text can come, too."""
    for text in (
        choice_grammar([mark]),
        json_grammar({"const": mark}),
        regex_grammar(re.escape(mark)),
    ):
        request = make_request(Grammar(text=without_forcing(text)))
        tokens = run(Sampler(grammars), request)
        assert text_of(tokens).strip('"') == mark
        assert TOKENIZER.token_to_id(mark) not in tokens


@pytest.mark.parametrize("seed", range(6))
def test_calls_are_drawn_with_the_model_s_own_markers(seed: int, grammars: Grammars) -> None:
    choice = detect("<tool_call> </think>", ())
    tools = random_tools(random.Random(seed))
    assert choice.writing is not None
    text = calls_grammar(
        choice.writing,
        callable_tools(tools),
        tokens_of(TOKENIZER),
        is_forced=True,
        max_calls=2,
    )
    tokens = run(Sampler(grammars), make_request(Grammar(text=text)), seed=seed, limit=3000)
    parser = choice.parser(prompt="", tools=tools, hold=GrammarHold.ANSWER)
    said = parse_whole(parser, text_of(tokens))
    start = TOKENIZER.token_to_id("<tool_call>")
    assert tokens.count(start) == len(said.calls)
    assert tokens.count(start + 1) == len(said.calls)
    assert said.calls
    assert not said.content
    schemas = {tool.name: tool.schema for tool in callable_tools(tools)}
    for call in said.calls:
        schema: Any = schemas[call.name]
        assert is_valid(json.loads(call.arguments), schema, schema)


@pytest.mark.parametrize("text", ["{}", "start: nowhere", '{"grammars": [{"regex": "("}]}'])
def test_what_cannot_be_compiled_fails_alone(text: str, grammars: Grammars) -> None:
    requests = [
        make_request(Grammar(text=text), 1),
        make_request(Grammar(text=regex_grammar("a")), 2),
    ]
    chunks = [chunk_of(request, list(request.prompt)) for request in requests]
    broken, fine = Sampler(grammars).sample(noise(2, 0), chunks)
    assert broken == IMPOSSIBLE_TOKEN
    assert text_of([fine]) == "a"


def test_limits_reached_on_the_way_fail_alone(grammars: Grammars) -> None:
    progress = grammars.progress(make_request(Grammar(text=regex_grammar("ab"))), VOCAB)
    progress.advance(TOKENIZER.encode("zzz").ids)
    assert allowed(progress) == set()


def test_tokenizer_is_read_once_and_late_and_old_grammars_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []
    compiled: list[str] = []

    def read() -> str:
        reads.append(1)
        return TOKENIZER.to_str()

    def compile(tokenizer: Any, text: str, **options: Any) -> Any:
        compiled.append(text)
        return original(tokenizer, text, **options)

    original = module.LLMatcher
    monkeypatch.setattr(module, "LLMatcher", compile)
    grammars = Grammars(read, max_compiled=3)
    assert not reads
    texts = [regex_grammar(f"x{index}") for index in range(4)]
    for index in (0, 0, 1, 2, 0, 3, 0, 1):
        grammars.progress(make_request(Grammar(text=texts[index])), VOCAB)
    assert compiled == [texts[index] for index in (0, 1, 2, 3, 1)]
    assert len(reads) == 1


def test_the_tokenizer_is_read_before_it_is_needed() -> None:
    """By another thread; whoever needs it meanwhile waits, and nobody reads it twice."""
    main = threading.get_ident()
    readers: list[int] = []
    is_wanted = threading.Event()

    def read() -> str:
        readers.append(threading.get_ident())
        assert is_wanted.wait(timeout=60)
        return TOKENIZER.to_str()

    grammars = Grammars(read)
    grammars.prepare()
    request = make_request(Grammar(text=regex_grammar("a")))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(grammars.progress, request, VOCAB) for _ in range(2)]
        assert not any(one.done() for one in waiting)
        is_wanted.set()
        assert all(len(allowed(one.result())) == 1 for one in waiting)
    assert len(readers) == 1
    assert readers[0] != main
    assert grammars.progress(request, VOCAB).forbidden.any()


def test_the_engine_s_runner_reads_it_when_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_read = threading.Event()
    original = build.read_tokenizer

    def read(*arguments: Any, **options: Any) -> str:
        is_read.set()
        return original(*arguments, **options)

    monkeypatch.setattr(build, "read_tokenizer", read)
    make_runner(DEMO, block_size=8)
    assert is_read.wait(timeout=60)


@pytest.mark.parametrize("error", [None, RuntimeError("planted"), OSError("planted"), Panic()])
def test_a_tokenizer_that_cannot_be_read_allows_nothing(error: BaseException | None) -> None:
    reads: list[int] = []

    def read() -> str:
        reads.append(1)
        if error is not None:
            raise error
        return "{}"

    grammars = Grammars(read)
    for _ in range(2):
        progress = grammars.progress(make_request(Grammar(text=regex_grammar("a"))), VOCAB)
        assert allowed(progress) == set()
    assert len(reads) == 1


@pytest.mark.parametrize("error", [RuntimeError("planted"), Panic("planted")])
def test_a_grammar_that_the_library_fails_to_compile_fails_its_request_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def compile(tokenizer: Any, text: str, **options: Any) -> Any:
        compiled.append(text)
        if text == bad.text:
            raise error
        return original(tokenizer, text, **options)

    original = module.LLMatcher
    monkeypatch.setattr(module, "LLMatcher", compile)
    good, bad = Grammar(text=regex_grammar("a")), Grammar(text=regex_grammar("b"))
    grammars = Grammars(TOKENIZER.to_str)
    requests = [make_request(good, 0), make_request(bad, 1)]
    for request in requests:
        grammars.compile(request)
        assert grammars.is_compiled(request), "nobody tries it again"
    found = [allowed(grammars.progress(request, VOCAB)) for request in requests]
    assert found == [set(TOKENIZER.encode("a").ids), set()]
    assert compiled == [good.text, bad.text]


def test_a_grammar_crosses_the_process_boundary() -> None:
    add = Add(make_request(Grammar(text=lark_grammar('start: "é"'), starts_after=3, opens_with=4)))
    assert decode_to_engine(encode(add)) == add


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return make_runner(DEMO, block_size=8)


def test_preemption_changes_nothing(runner: ModelRunner) -> None:
    """The demo model with a pool so small that sequences are computed again and again."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"enum": ["x" * 20, "yy"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    texts = [json_grammar(schema), regex_grammar("(ab|cd){9,20}!"), regex_grammar(r"\d{30}")]
    requests = [
        replace(make_request(Grammar(text=text), i), stop_token_ids=(2,), max_tokens=48)
        for i, text in enumerate(texts)
    ]
    requests.append(replace(requests[0], id=9, grammar=None, stop_token_ids=()))
    alone: dict[int, list[int]] = {}
    for request in requests:
        alone |= answers(runner, [request], max_step_tokens=64)
    assert answers(runner, requests, max_step_tokens=64, num_blocks=8) == alone
    value = json.loads(TOKENIZER.decode(alone[0]))
    assert set(value) == {"a", "b"}
    assert value["b"] in ("x" * 20, "yy")
