"""From a checked completion request to engine requests, one for each prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from millstream.core.request import Request
from millstream.core.status import EngineInfo
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.context import ModelContext
from millstream.intake.engine_request import check_token_ids, engine_request, with_grammar
from millstream.intake.requests.completion import CompletionRequest, TextOrIds
from millstream.text.raw_prompt import EncodedPrompt, decode_ids, encode_text


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """first: the engine request of its first answer, but for the id of its stream.

    unenforced: what of the wanted format is left to the model.
    """

    prompt: EncodedPrompt
    first: Request
    unenforced: tuple[str, ...] = ()


class CompletionPreparation:
    """Prepares requests for one model, beside the event loop that it is called from."""

    def __init__(self, context: ModelContext, *, grammars: AnswerGrammars) -> None:
        self._context = context
        self._grammars = grammars

    async def prepare(self, completion: CompletionRequest) -> list[PreparedPrompt]:
        """Raises InvalidRequest for what this model cannot do, ContextTooLong for a prompt that
        leaves no room for an answer. Cancelled, ends what it does soon."""
        prepared = await self._context.workers.threads.run(partial(self._requests, completion))
        wanted, finished = completion.wanted_format, []
        unenforced: tuple[str, ...] = ()
        if wanted is not None:
            wanted, unenforced = await self._grammars.enforceable(wanted)
        for prompt, request in prepared:
            grammar = None
            if wanted is not None:
                grammar = await self._grammars.grammar(wanted, prompt.token_ids, may_think=False)
            request = with_grammar(request, grammar, completion)
            finished.append(PreparedPrompt(prompt, request, unenforced))
        return finished

    def _requests(self, completion: CompletionRequest) -> list[tuple[EncodedPrompt, Request]]:
        """The prompts, each with the request for an answer to it that may be anything."""
        info = self._context.engine.info
        check_token_ids(completion, vocab_size=info.vocab_size)
        prompts = [self._encode(completion, prompt, info) for prompt in completion.prompts]
        self._check_total(prompts)
        return [(prompt, self._request(completion, prompt)) for prompt in prompts]

    def _encode(
        self, completion: CompletionRequest, prompt: TextOrIds, info: EngineInfo
    ) -> EncodedPrompt:
        tokenizer = self._context.tokenizer
        if isinstance(prompt, str):
            is_framed = completion.add_special_tokens is not False
            return encode_text(
                tokenizer,
                prompt,
                add_special_tokens=is_framed,
                max_context=info.max_context,
                keep_last=completion.kept_tokens,
            )
        return decode_ids(
            tokenizer, prompt, vocab_size=info.vocab_size, max_context=info.max_context
        )

    def _check_total(self, prompts: list[EncodedPrompt]) -> None:
        """Raises InvalidRequest for prompts that could never wait together."""
        limit = self._context.engine.max_waiting_tokens
        total = sum(len(prompt.token_ids) for prompt in prompts)
        if len(prompts) > 1 and limit is not None and total > limit:
            raise InvalidRequest(
                f"prompt: {len(prompts)} prompts with {total} tokens are more than the {limit} "
                "tokens that may wait; send them in several requests",
                param="prompt",
            )

    def _request(self, completion: CompletionRequest, prompt: EncodedPrompt) -> Request:
        """What the engine is asked: one token at least, which is not shown if none was wanted."""
        engine, words = self._context.engine, completion.bad_words or ()
        vocabulary, num_prompt = self._context.vocabulary, len(prompt.token_ids)
        room = engine.check_length(num_prompt=num_prompt, param="prompt")
        completion.check_fit(num_prompt=num_prompt, max_context=engine.info.max_context)
        request = engine_request(
            completion,
            engine.info,
            request_id=0,
            prompt=prompt.token_ids,
            wanted=max(completion.wanted_tokens, 1),
            room=room,
            logprobs=completion.logprobs,
            bad_words=[way for word in words for way in vocabulary.sequences(word)],
            end_of_turn=(*engine.info.stop_token_ids, *self._context.stop_token_ids),
        )
        return replace(request, prompt_logprobs=completion.num_prompt_logprobs)
