"""Every field that changes which tokens are drawn, or when the answer ends, does so."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from .harness import RunningServer
from .sdk import openai_client
from .wire import messages, open_stream

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "return_token_ids": True}


def choice_of(server: RunningServer, content: str = "Hello", **fields: Any) -> dict[str, Any]:
    response = server.chat(content, **(GREEDY | fields))
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def tokens_of(server: RunningServer, content: str = "Hello", **fields: Any) -> list[int]:
    ids: list[int] = choice_of(server, content, **fields)["token_ids"]
    return ids


def text_of(choice: dict[str, Any]) -> str:
    text: str = choice["message"]["content"]
    return text


def test_logit_bias_forces_and_forbids_a_token(endless_server: RunningServer) -> None:
    plain = tokens_of(endless_server)
    other = next(token for token in range(300, 1000) if token not in plain)
    with openai_client(endless_server.url) as client:
        answer = client.chat.completions.create(
            model="any",
            messages=messages("Hello"),
            temperature=0,
            max_tokens=5,
            logit_bias={str(other): 100},
            extra_body={"return_token_ids": True},
        )
    assert answer.choices[0].model_extra is not None
    assert answer.choices[0].model_extra["token_ids"] == [other] * 5
    assert plain[0] not in tokens_of(endless_server, logit_bias={str(plain[0]): -100})


def test_only_allowed_tokens_are_drawn(endless_server: RunningServer) -> None:
    allowed = [310, 320, 330]
    found = tokens_of(endless_server, allowed_token_ids=allowed, temperature=2, seed=1)
    assert set(found) == set(allowed)


def test_a_bad_word_of_several_tokens_does_not_come(demo_server: RunningServer) -> None:
    question = "Which day comes after Tuesday?"
    plain = choice_of(demo_server, question)
    assert "Wednesday" in text_of(plain)
    assert "Wednesday" not in text_of(choice_of(demo_server, question, bad_words=["Wednesday"]))
    other = choice_of(demo_server, question, bad_words=["no such word"])
    assert other["token_ids"] == plain["token_ids"]


def test_a_bad_word_of_one_token_is_never_drawn(endless_server: RunningServer) -> None:
    plain = tokens_of(endless_server)
    with openai_client(endless_server.url) as client:
        logprobs = client.chat.completions.create(
            model="any", messages=messages("Hello"), temperature=0, max_tokens=40, logprobs=True
        ).choices[0]
    assert logprobs.logprobs is not None
    assert logprobs.logprobs.content is not None
    words = [entry.token for entry in logprobs.logprobs.content]
    index = next(i for i, word in enumerate(words) if word.isascii() and word.isalpha())
    found = tokens_of(endless_server, bad_words=[words[index]])
    assert found[:index] == plain[:index]
    assert plain[index] not in found


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"repetition_penalty": 3.0},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_penalties_break_a_greedy_repetition(
    fields: dict[str, Any], endless_server: RunningServer
) -> None:
    # So few tokens that the same ones win again and again.
    allowed = {"allowed_token_ids": list(range(300, 340)), "max_tokens": 40}
    plain = Counter(tokens_of(endless_server, **allowed))
    punished = Counter(tokens_of(endless_server, **allowed, **fields))
    assert len(punished) > len(plain)


def test_min_p_and_typical_p_narrow_the_choice(endless_server: RunningServer) -> None:
    greedy = tokens_of(endless_server)
    assert tokens_of(endless_server, temperature=2, min_p=1, seed=1) == greedy
    assert tokens_of(endless_server, temperature=2, min_p=0, seed=1) != greedy
    # The most typical token alone: one answer whatever the seed, and not always the most probable.
    first, second = (
        tokens_of(endless_server, temperature=2, typical_p=1e-9, seed=seed) for seed in (1, 2)
    )
    assert first == second
    assert first != tokens_of(endless_server, temperature=2, typical_p=1, seed=1)


def test_min_tokens_puts_the_end_off(demo_server: RunningServer) -> None:
    plain = choice_of(demo_server, "Count to 3", max_tokens=60)
    assert plain["finish_reason"] == "stop"
    num_plain = len(plain["token_ids"])
    longer = choice_of(demo_server, "Count to 3", max_tokens=60, min_tokens=num_plain + 10)
    assert len(longer["token_ids"]) > num_plain + 10
    assert text_of(longer).startswith(text_of(plain))


def test_stop_strings_wait_for_min_tokens(demo_server: RunningServer) -> None:
    plain = choice_of(demo_server, "Count to 10", max_tokens=60)
    lines = text_of(plain).split("\n")
    assert len(lines) == 10
    assert text_of(choice_of(demo_server, "Count to 10", stop="\n")) == lines[0]
    later = choice_of(demo_server, "Count to 10", stop="\n", min_tokens=6)
    assert text_of(later) == "\n".join(lines[:4])
    assert later["finish_reason"] == "stop"


def test_ignore_eos_goes_on_to_the_limit(demo_server: RunningServer) -> None:
    plain = choice_of(demo_server, "Count to 3", max_tokens=30)
    longer = choice_of(demo_server, "Count to 3", max_tokens=30, ignore_eos=True)
    assert plain["finish_reason"] == "stop"
    assert longer["finish_reason"] == "length"
    assert len(longer["token_ids"]) == 30
    assert longer["token_ids"][: len(plain["token_ids"])] == plain["token_ids"]
    assert "<|" not in text_of(longer)
    shown = choice_of(
        demo_server, "Count to 3", max_tokens=30, ignore_eos=True, skip_special_tokens=False
    )
    assert text_of(shown).startswith(text_of(plain) + "<|im_end|>")
    assert shown["token_ids"] == longer["token_ids"]


def test_stop_token_ids_end_the_answer(endless_server: RunningServer) -> None:
    plain = tokens_of(endless_server)
    index = next(i for i in range(5, 40) if plain[i] not in plain[:i])
    stopped = choice_of(endless_server, stop_token_ids=[plain[index]])
    assert stopped["token_ids"] == plain[: index + 1]
    assert stopped["finish_reason"] == "stop"
    before = choice_of(endless_server, max_tokens=index)
    assert text_of(before).startswith(text_of(stopped).rstrip("\ufffd"))
    shown = choice_of(
        endless_server, stop_token_ids=[plain[index]], include_stop_str_in_output=True
    )
    assert text_of(shown) == text_of(choice_of(endless_server, max_tokens=index + 1))


def test_the_stop_string_is_shown_on_request(demo_server: RunningServer) -> None:
    fields: dict[str, Any] = {"stop": "5", "include_stop_str_in_output": True}
    assert text_of(choice_of(demo_server, "Count to 10", **fields)) == "1\n2\n3\n4\n5"


def test_an_answer_can_be_continued(demo_server: RunningServer) -> None:
    prefill: list[Any] = [
        *messages("Count to 10"),
        {"role": "assistant", "content": "1\n2\n3\n"},
    ]

    def ask(**fields: Any) -> tuple[list[int], str]:
        more = {"messages": prefill, "max_tokens": 60, "return_token_ids": True} | fields
        body = demo_server.chat(**more).json()
        return body["prompt_token_ids"], text_of(body["choices"][0])

    open_prompt, continued = ask(continue_final_message=True, add_generation_prompt=False)
    assert continued == "\n".join(map(str, range(4, 11)))
    assert ask() == (open_prompt, continued)
    # If the request says so, it is history: the turn is over, and a new one begins.
    closed_prompt, answer = ask(continue_final_message=False)
    assert ask(add_generation_prompt=True) == (closed_prompt, answer)
    assert not answer.startswith("4")
    end_of_turn = 2
    assert closed_prompt[: len(open_prompt)] == open_prompt
    assert closed_prompt[len(open_prompt)] == end_of_turn


def test_variables_of_the_template_change_the_prompt(demo_server: RunningServer) -> None:
    def prompt(**fields: Any) -> list[int]:
        response = demo_server.chat("Hello", max_tokens=1, return_token_ids=True, **fields)
        ids: list[int] = response.json()["prompt_token_ids"]
        return ids

    plain = prompt()
    on = prompt(chat_template_kwargs={"enable_thinking": True})
    off = prompt(chat_template_kwargs={"enable_thinking": False})
    assert len({tuple(ids) for ids in (plain, on, off)}) == 3
    assert prompt(reasoning_effort="none") == off
    assert prompt(reasoning_effort="low") == on
    assert len(prompt(add_generation_prompt=False)) < len(plain)


def test_salted_requests_share_no_cache(endless_server: RunningServer) -> None:
    content = "A prompt of some length that nobody else sends, for the cache. " * 3

    def cached(salt: str | None) -> int:
        usage = endless_server.chat(content, max_tokens=1, cache_salt=salt).json()["usage"]
        count: int = usage["prompt_tokens_details"]["cached_tokens"]
        return count

    assert cached(None) == 0
    assert cached(None) > 0
    assert cached("mine") == 0
    assert cached("mine") > 0
    assert cached("yours") == 0


def test_a_request_can_limit_its_time(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        fields: dict[str, Any] = {"model": "any", "messages": messages("Hello")}
        fields |= {"max_tokens": 30_000, "extra_body": {"timeout": 0.3}}
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**fields)
        assert caught.value.status_code == 504
        with pytest.raises(openai.APIError) as failed:
            for _ in client.chat.completions.create(**fields, stream=True):
                pass
        assert failed.value.code == "timeout"


def test_the_smaller_priority_goes_first(endless_server: RunningServer) -> None:
    finished: list[int] = []

    def ask(priority: int) -> None:
        assert endless_server.chat("Hello", max_tokens=40, priority=priority).status_code == 200
        finished.append(priority)

    threads = [threading.Thread(target=ask, args=(priority,)) for priority in (5, -5)]
    with ExitStack() as streams:
        first = streams.enter_context(ExitStack())
        first.enter_context(open_stream(endless_server))
        for _ in range(7):
            streams.enter_context(open_stream(endless_server))
        endless_server.wait_engine(num_running=8)
        for count, thread in enumerate(threads, 1):
            thread.start()
            endless_server.wait_engine(num_running=8, num_waiting=count)
        first.close()  # one place becomes free
        for thread in threads:
            thread.join()
    assert finished == [-5, 5]
