"""Semantic Kernel's `OpenAIChatCompletion`, alone and with a plugin whose functions are tools."""

from __future__ import annotations

from typing import Any

from common import (
    ADD,
    ADDED,
    COUNT,
    COUNTED,
    DEMO_URL,
    DORA,
    EXTRACT,
    KEY,
    MODEL,
    SCRIPTED_URL,
    TOO_LONG,
    User,
    case,
    is_told_in_await,
    run,
)
from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


class Calculator:
    @kernel_function(name="add", description="Adds two numbers.")
    def add(self, a: int, b: int) -> int:
        return a + b


class Weather:
    @kernel_function(name="get_weather", description="Get the current weather")
    def get_weather(self, city: str) -> str:
        return f'{{"temperature": 21, "condition": "sunny", "city": "{city}"}}'


def service(url: str) -> OpenAIChatCompletion:
    client = AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0)
    return OpenAIChatCompletion(ai_model_id=MODEL, async_client=client)


def history(text: str) -> ChatHistory:
    chat = ChatHistory()
    chat.add_user_message(text)
    return chat


def settings(**options: Any) -> OpenAIChatPromptExecutionSettings:
    return OpenAIChatPromptExecutionSettings(**options)


async def answer_with_plugin(url: str, plugin: object, text: str) -> tuple[str, list[str]]:
    """The last words, and the full names of the functions that were called."""
    kernel, chat, auto = Kernel(), history(text), FunctionChoiceBehavior.Auto()
    kernel.add_plugin(plugin, plugin_name="plugin")
    answer = await service(url).get_chat_message_content(
        chat, settings(function_choice_behavior=auto), kernel=kernel
    )
    items = [item for message in chat.messages for item in message.items]
    called = [item.name for item in items if item.content_type == "function_call"]
    return str(answer), called


@case
async def a_whole_answer() -> None:
    answer = await service(DEMO_URL).get_chat_message_content(history(COUNT), settings())
    assert str(answer) == COUNTED


@case
async def a_stream() -> None:
    stream = service(DEMO_URL).get_streaming_chat_message_content(history(COUNT), settings())
    pieces = [str(chunk) async for chunk in stream]
    assert "".join(pieces) == COUNTED
    assert len(pieces) > 1


@case
async def a_function_of_a_plugin_is_called_by_its_end() -> None:
    """It is offered as plugin-add."""
    assert await answer_with_plugin(SCRIPTED_URL, Calculator(), ADD) == (ADDED, ["plugin-add"])


@case
async def the_demo_model_calls_a_function_of_a_plugin() -> None:
    question = "What is the weather in Oslo?"
    answer, called = await answer_with_plugin(DEMO_URL, Weather(), question)
    assert called == ["plugin-get_weather"]
    assert answer == "The weather in Oslo is sunny, 21 degrees."


@case
async def a_typed_answer() -> None:
    answer = await service(SCRIPTED_URL).get_chat_message_content(
        history(EXTRACT), settings(response_format=User)
    )
    assert User.model_validate_json(str(answer)) == DORA


@case
async def a_prompt_that_is_too_long() -> None:
    call = service(DEMO_URL).get_chat_message_content(history(TOO_LONG), settings())
    assert await is_told_in_await(call)


run()
