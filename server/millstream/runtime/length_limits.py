"""How long prompts and answers may be: by the model's context, and by what the operator allows."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.errors import ContextTooLong


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """max_answer, max_prompt: in tokens, as the operator says; None leaves it to the context."""

    max_answer: int | None = None
    max_prompt: int | None = None

    def longest_prompt(self, max_context: int) -> int:
        """Tokens of the longest prompt; one at least is left for the answer."""
        longest = max_context - 1
        return min(longest, self.max_prompt or longest)

    def check(self, *, num_prompt: int, max_context: int, param: str) -> int:
        """Tokens that may be generated after a prompt of this many tokens, at least one.

        Raises ContextTooLong with the numbers when the prompt leaves no room. param: the field
        that has the prompt.
        """
        longest = self.longest_prompt(max_context)
        if num_prompt > longest < max_context - 1:
            raise ContextTooLong(
                f"The prompt has {num_prompt} tokens, more than the {longest} that "
                f"this server takes. Shorten the {param}.",
                param=param,
                num_tokens=num_prompt,
                limit=longest,
            )
        if num_prompt >= max_context:
            raise ContextTooLong(
                f"The prompt has {num_prompt} tokens, but this model's context holds {max_context} "
                f"tokens for prompt and answer together. Shorten the {param}, offer fewer tools "
                "if there are any, or serve a model with a longer context.",
                param=param,
                num_tokens=num_prompt,
                limit=max_context - 1,
            )
        return min(max_context - num_prompt, self.max_answer or max_context)
