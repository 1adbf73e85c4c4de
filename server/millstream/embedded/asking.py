"""From a prompt and its options to the request that a client would have sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millstream.core.status import EngineInfo
from millstream.embedded.arguments import WrongArgument, as_json
from millstream.embedded.options import TextOptions, check_names
from millstream.errors import InvalidRequest
from millstream.intake.engine_request import check_token_ids
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.intake.requests.completion import CompletionRequest, parse_completion_request

Message = Mapping[str, Any]
Prompt = str | Sequence[Message] | Sequence[int]
"""A user's text, a conversation, or token ids."""

Conversation = list[dict[str, Any]]
Checked = Conversation | str | list[int]
"""A conversation for the chat template; or text, or ids, that the model reads as they are."""

Asked = ChatRequest | CompletionRequest

_ANY_CONVERSATION: Conversation = [
    {"role": "user", "content": "-"},
    {"role": "assistant", "content": "-"},
]


def check_prompt(prompt: Prompt, *, raw: bool) -> Checked:
    """raw: a string is no message but text to go on with. Raises InvalidRequest."""
    name = "prompt" if raw else "messages"
    if isinstance(prompt, str):
        text = as_json(prompt, path=name)
        return text if raw else [{"role": "user", "content": text}]
    if isinstance(prompt, Mapping):
        raise WrongArgument(
            "a conversation is a list of messages; put the message into a list", param=name
        )
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise WrongArgument(
            "a prompt is a string, a list of messages or a list of token ids, not "
            f"{type(prompt).__name__}",
            param=name,
        )
    if not prompt:
        raise InvalidRequest("the prompt is empty", param=name)
    if all(isinstance(part, Mapping) for part in prompt):
        if raw:
            raise WrongArgument(
                "messages need the chat template; give text or token ids", param=name
            )
        return [as_json(part, path=f"messages[{at}]") for at, part in enumerate(prompt)]
    if all(isinstance(part, int) and not isinstance(part, bool) for part in prompt):
        return as_json(prompt, path="prompt")  # type: ignore[no-any-return]
    raise WrongArgument(
        "a prompt holds either messages (dicts) or token ids, and nothing else", param=name
    )


class Options:
    """Keywords as fields of a request: names and values that JSON has, checked with a prompt.

    Raises InvalidRequest for wrong ones, with any prompt.
    """

    def __init__(self, given: Mapping[str, Any], info: EngineInfo, *, raw: bool) -> None:
        """raw: whether the prompts are text without a template."""
        check_names(given)
        self._info = info
        self._fields = {
            name: as_json(value, path=name) for name, value in given.items() if value is not None
        }
        self.request("-" if raw else _ANY_CONVERSATION)

    def request(self, prompt: Checked) -> Asked:
        """Raises InvalidRequest if prompt and options do not go together."""
        is_chat = isinstance(prompt, list) and isinstance(prompt[0], dict)
        asked = self._chat(prompt) if is_chat else self._text(prompt)
        check_token_ids(asked, vocab_size=self._info.vocab_size)
        return asked

    def _chat(self, messages: Any) -> ChatRequest:
        fields = self._fields | {"messages": messages}
        if "logprobs" in fields:
            # OpenAI's two fields say what is one here.
            fields |= {"logprobs": True, "top_logprobs": fields["logprobs"]}
        try:
            return parse_chat_request(fields)
        except InvalidRequest as error:
            if error.param != "top_logprobs":
                raise
            raise InvalidRequest(error.message.removeprefix("top_"), param="logprobs") from error

    def _text(self, prompt: Any) -> CompletionRequest:
        for name in self._fields:
            if name not in TextOptions.__annotations__:
                raise InvalidRequest(
                    f"{name}: this prompt is not put into the chat template", param=name
                )
        # A completion's default is 16 tokens; here it is what the context has left.
        room = {"max_tokens": self._info.max_context}
        return parse_completion_request({**room, **self._fields, "prompt": prompt})
