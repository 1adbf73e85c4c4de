"""The keywords of `chat()`, `complete()` and `generate()`.

Rule: names, ranges and meaning are those of the HTTP API's fields, and the same code checks them.
None means: not given, take what the model's generation config recommends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from typing_extensions import TypedDict

from millstream.embedded.arguments import WrongArgument

# What others call them, where that is spelled too differently to be found.
_ELSEWHERE = {
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "stop_strings": "stop",
    "eos_token_id": "stop_token_ids",
    "bad_words_ids": "bad_words",
    "top_logprobs": "logprobs",
    "reasoning": "reasoning_effort",
    "functions": "tools",
    "function_call": "tool_choice",
    **dict.fromkeys(("guided_json", "json_schema"), "response_format"),
    **dict.fromkeys(("guided_regex", "regex"), "structured_outputs"),
    **dict.fromkeys(("guided_choice", "guided_grammar", "grammar", "ebnf"), "structured_outputs"),
}


class TextOptions(TypedDict, total=False):
    """How an answer is generated. What each one does to the logits: see core's SamplingParams.

    max_tokens: at most so many are generated (default: what the context has left).
    n: so many answers to each prompt. timeout: seconds after which it fails.
    stop: strings that end the answer and are no part of it.
    stop_token_ids: these end the answer, besides the model's own end of turn.
    ignore_eos: the model's own end of turn does not end the answer.
    bad_words: texts that are not generated.
    logprobs: how many alternatives to report with each token; prompt_logprobs: the same for the
        prompt's tokens from the second one on.
    seed: fixes what is drawn, whatever else is running (default: another one each time).
    priority: smaller runs first. cache_salt: prefixes are shared only within the same salt.
    response_format, structured_outputs: what the answer must look like, as OpenAI and as vLLM
        write it: a JSON schema; a pattern, texts to choose from, a grammar.
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int, float] | None
    bad_words: Sequence[str] | None
    allowed_token_ids: Sequence[int] | None
    min_tokens: int | None
    seed: int | None
    n: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    ignore_eos: bool | None
    priority: int | None
    cache_salt: str | None
    timeout: float | None
    response_format: Mapping[str, Any] | None
    structured_outputs: Mapping[str, Any] | None


class ChatOptions(TextOptions, total=False):
    """Those for prompts that the chat template writes.

    tools: functions that the model may call. tool_choice: "none", "auto", "required", or one of
        them. parallel_tool_calls: False ends the answer after one call.
    reasoning_effort: how much to think. include_reasoning: False does not show it.
    continue_final_message: the answer goes on in the last message (default: if the assistant's).
    chat_template_kwargs: variables that the model's chat template reads (enable_thinking).
    """

    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    include_reasoning: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    chat_template_kwargs: Mapping[str, Any] | None


def check_names(given: Mapping[str, Any]) -> None:
    """Raises WrongArgument for a keyword that there is not."""
    for name in given:
        if name not in ChatOptions.__annotations__:
            known = ", ".join(ChatOptions.__annotations__)
            raise WrongArgument(
                f"there is no option {name!r};{_hint(name)} there are: {known}", param=name
            )


def _hint(name: str) -> str:
    """The known name that is near to an unknown one, as a question."""
    known = ChatOptions.__annotations__
    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, known, n=1)
    return f" did you mean {near[0]}?" if near else ""
