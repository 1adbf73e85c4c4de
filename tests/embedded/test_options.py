"""Keywords: each is honoured or refused by name; settings too."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream import Engine
from millstream.core.request import Request, SamplingParams
from millstream.embedded.keywords import EngineSettings, LoadingSettings
from millstream.embedded.options import ChatOptions, TextOptions, check_names
from millstream.errors import InvalidRequest, StartupError
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.runtime.stream import TokenStream
from millstream.settings import Settings
from millstream.text.vocabulary import Vocabulary

SERVER_ONLY = {
    "max_input_tokens",
    "socket_idle_seconds",
    "tgi_error_events",
    "time_between_chunks",
    *("model_id", "served_model_name", "host", "port", "payload_limit", "ping_seconds"),
    *("send_timeout", "engine_timeout", "graceful_termination_timeout", "log_level"),
    *("max_queue_tokens", "max_queue_seconds", "request_timeout", "max_output_tokens"),
    *(
        "api_key",
        "api_keys_file",
        "allowed_hosts",
        "allowed_origins",
        "allow_credentials",
        "root_path",
    ),
    *("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password"),
    *("store", "store_days", "store_bytes", "session_days", "page"),
    *("open_metrics", "max_engine_restarts", "log_format", "log_prompts", "http_workers"),
    *("otlp_traces_endpoint", "otlp_service_name"),
}
GIVEN: dict[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.9,
    "min_p": 0.1,
    "typical_p": 0.8,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.3,
    "presence_penalty": -0.4,
    "logit_bias": {5: -1.5},
    "bad_words": ["test"],
    "allowed_token_ids": (5, 6, 7),
    "min_tokens": 2,
    "seed": -1,
    "logprobs": 4,
    "prompt_logprobs": 1,
    "stop_token_ids": [9],
    "ignore_eos": True,
    "priority": -5,
    "cache_salt": "mine",
}


NOT_HERE = {
    # the prompt, how it is sent, and words for the log
    *("messages", "prompt", "stream", "stream_options", "usage", "model", "user"),
    *("safety_identifier", "prompt_cache_key", "metadata", "return_token_ids"),
    # other names of what there is
    *("max_completion_tokens", "top_logprobs", "reasoning", "regex", "ebnf", "grammar"),
    *("json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    # of completions: the prompt once more, and as many answers as are shown
    *("echo", "best_of", "add_special_tokens"),
}


@pytest.fixture
def asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the engine's thread is handed."""
    requests: list[Request] = []
    real = TokenStream.start

    def start(self: TokenStream, request: Request) -> None:
        requests.append(request)
        real(self, request)

    monkeypatch.setattr(TokenStream, "start", start)
    return requests


@pytest.mark.parametrize("raw", [False, True])
def test_every_option_reaches_the_engine(
    engine: Engine, asked: list[Request], tokenizer: PreTrainedTokenizerBase, *, raw: bool
) -> None:
    words = Vocabulary(tokenizer.backend_tokenizer).sequences("test")
    engine.generate(["Hi"], raw=raw, show_progress=False, **GIVEN)
    (request,) = asked
    assert request == Request(
        id=request.id,
        prompt=request.prompt,
        sampling=SamplingParams(
            temperature=0.5,
            top_k=3,
            top_p=0.9,
            min_p=0.1,
            typical_p=0.8,
            repetition_penalty=1.2,
            frequency_penalty=0.3,
            presence_penalty=-0.4,
            logit_bias=((5, -1.5),),
            bad_words=words,
            allowed_token_ids=(5, 6, 7),
            min_tokens=2,
            seed=2**64 - 1,
            logprobs=4,
        ),
        max_tokens=7,
        stop_token_ids=(9,),
        priority=-5,
        cache_salt="mine",
        prompt_logprobs=1,
    )


def test_whatever_a_client_may_ask_a_program_may_ask() -> None:
    """One request type behind both: a new field is an option, or is said to be none."""
    chat, text = set(ChatRequest.model_fields), set(CompletionRequest.model_fields)
    assert chat - NOT_HERE == set(ChatOptions.__annotations__)
    assert text - NOT_HERE == set(TextOptions.__annotations__)
    assert chat | text > NOT_HERE


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_new_tokens", "max_tokens"),
        ("temprature", "temperature"),
        ("eos_token_id", "stop_token_ids"),
    ],
)
def test_an_unknown_name_is_answered_with_the_near_one(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}'; did you mean {meant}\?"):
        check_names({name: 7})
    with pytest.raises(InvalidRequest, match=r"'zzz'; there are") as caught:
        check_names({"zzz": 7})
    assert caught.value.param == "zzz"


@pytest.mark.parametrize("raw", [False, True])
def test_none_is_not_given(engine: Engine, asked: list[Request], *, raw: bool) -> None:
    names = (TextOptions if raw else ChatOptions).__annotations__
    nothing: Any = dict.fromkeys(names)
    ask = engine.complete if raw else engine.chat
    ask("Hi", **nothing).wait_admitted().close()
    (none,) = asked
    assert none.max_tokens == engine.info.max_context - len(none.prompt)
    assert none.sampling.temperature == engine.info.defaults.temperature


def test_ends_of_turn_and_own_stop_tokens_both_end(
    engine: Engine, asked: list[Request], tokenizer: PreTrainedTokenizerBase
) -> None:
    engine.generate(["Hi"], stop_token_ids=[9], max_tokens=1, show_progress=False)
    ends = {*engine.info.stop_token_ids, tokenizer.eos_token_id}
    assert set(asked[0].stop_token_ids) == {*ends, 9}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", True),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", "1"),
        ("top_p", 0),
        ("top_k", -2),
        ("logit_bias", {10**7: 1}),
        ("logit_bias", {5: "x"}),
        ("logit_bias", {True: 1}),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [-1]),
        ("stop_token_ids", [10**7]),
        ("stop", ""),
        ("stop", ["a", 5]),
        ("bad_words", "word"),
        ("seed", 2**64),
        ("logprobs", -1),
        ("cache_salt", ""),
    ],
)
def test_wrong_values_are_refused_by_name(engine: Engine, name: str, value: Any) -> None:
    options: Any = {name: value}
    with pytest.raises(InvalidRequest, match=name) as caught:
        engine.chat("Hi", **options)
    assert caught.value.param is not None
    assert caught.value.param.startswith(name)
    with pytest.raises(InvalidRequest, match=name):
        engine.generate(["Hi"], show_progress=False, **options)


@pytest.mark.parametrize("name", ["max_new_tokens", "return_token_ids", "stream"])
def test_unknown_options_are_type_errors(engine: Engine, name: str) -> None:
    options: Any = {name: 1}
    with pytest.raises(TypeError, match=f"'{name}'.*max_tokens"):
        engine.chat("Hi", **options)
    with pytest.raises(TypeError, match=f"'{name}'"):
        engine.generate(["Hi"], show_progress=False, **options)


def test_stop_strings(engine: Engine) -> None:
    def answer(**options: Any) -> tuple[str, int]:
        (answer,) = engine.generate(["Count to 5"], show_progress=False, **options)
        assert answer.finish_reason == "stop"
        return answer.text, len(answer.token_ids)

    assert answer(stop="\n3") == ("1\n2", 5)
    assert answer(stop=("9", "2\n")) == ("1\n", 4)
    assert answer(stop=["3"], include_stop_str_in_output=True) == ("1\n2\n3", 5)
    assert answer(stop="2", min_tokens=4) == ("1\n2\n3\n4\n5", 10)


def test_special_tokens_can_be_shown(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
    options: Any = {"ignore_eos": True, "skip_special_tokens": False, "max_tokens": 12}
    (answer,) = engine.generate(["Count to 5"], show_progress=False, **options)
    assert answer.text.startswith(f"1\n2\n3\n4\n5{tokenizer.eos_token}")


def test_log_probabilities_come_with_their_tokens(engine: Engine) -> None:
    (answer,) = engine.generate(
        ["Count to 5"], logprobs=2, prompt_logprobs=0, temperature=0, show_progress=False
    )
    assert "".join(entry.text for entry in answer.logprobs) == answer.text
    assert tuple(e.score.token_id for e in answer.logprobs) == answer.token_ids[:-1]
    assert all(e.score.rank == 1 and len(e.score.top) == 2 for e in answer.logprobs)
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens - 1


def test_template_variables_reach_the_template(engine: Engine) -> None:
    options: Any = {"chat_template_kwargs": {"enable_thinking": True}, "show_progress": False}
    (answer,) = engine.generate(["What is 27 + 58?"], **options)
    assert answer.reasoning
    with pytest.raises(InvalidRequest, match="no_such_thing"):
        next(engine.chat("Hi", chat_template_kwargs={"no_such_thing": 1}))
    with pytest.raises(InvalidRequest, match="chat_template_kwargs"):
        next(engine.complete("Hi", chat_template_kwargs={"enable_thinking": True}))


def test_every_setting_is_for_engines_or_for_the_server() -> None:
    engines = set(LoadingSettings.__annotations__)
    assert engines.isdisjoint(SERVER_ONLY)
    assert engines | SERVER_ONLY == set(Settings.model_fields)
    assert set(EngineSettings.__annotations__) < engines


@pytest.mark.parametrize("name", ["host", "log_level", "nonsense"])
def test_settings_of_the_server_are_refused_by_name(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    settings: Any = {name: "x"}
    with pytest.raises(TypeError, match=f"{name} is.*max_concurrent_requests"):
        Engine(model, tokenizer, **settings)
    with pytest.raises(TypeError, match=f"{name} is.*dtype"):
        Engine.from_pretrained("demo", **settings)


def test_a_loaded_model_is_not_loaded_again(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(TypeError, match=r"dtype.*from_pretrained"):
        Engine(model, tokenizer, dtype="float32")  # type: ignore[call-arg]


def test_wrong_settings_name_the_keyword(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(StartupError, match=r"^block_size: .*got 17"):
        Engine(model, tokenizer, block_size=17)
    with pytest.raises(StartupError, match="max_concurrent_requests"):
        Engine(model, tokenizer, max_concurrent_requests=0)


def test_the_servers_environment_is_not_the_engines(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_BLOCK_SIZE", "32")
    monkeypatch.setenv("MILLSTREAM_PORT", "no number")
    with Engine(model, tokenizer, block_size=8, kv_cache_memory="8MiB") as engine:
        assert engine.info.block_size == 8
        assert 0 < engine.info.kv_cache_bytes <= 8 * 2**20
    with Engine(model, tokenizer, max_total_tokens=64) as engine:
        assert (engine.info.block_size, engine.info.max_context) == (16, 64)
