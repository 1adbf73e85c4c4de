"""What an engine turned out to be, and how it stands: frozen facts that others only show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from millstream.core.archive import ArchiveStatistics
from millstream.core.request import SamplingParams


class Report(Protocol):
    """Hears how far a start is: at which step, and which part of it is done, if that is known."""

    def __call__(self, step: str, fraction: float | None = None) -> None: ...


def unreported(step: str, fraction: float | None = None) -> None:
    """For starts that nobody follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Facts of a loaded engine, for admission, defaults and people.

    max_context: tokens that prompt plus answer may have. max_step_tokens: token budget of a step.
    target_itl_seconds: gap between an answer's tokens that prompts may cause; None: any.
    quantization: how the weights are stored, if not in dtype.
    num_blocks, block_size, kv_cache_bytes: the KV cache. stop_token_ids: the model's end-of-turn
    tokens. defaults: the sampling that its generation_config.json recommends.
    num_states, state_bytes: slots for the states of sequences, and what one takes, if the model has
    states; own_states: those that a running sequence needs.
    """

    architecture: str
    num_parameters: int
    device: str
    dtype: str
    attention_backend: str
    num_blocks: int
    block_size: int
    kv_cache_bytes: int
    max_context: int
    max_step_tokens: int
    vocab_size: int
    stop_token_ids: tuple[int, ...]
    quantization: str | None = None
    defaults: SamplingParams = field(default_factory=SamplingParams)
    num_states: int = 0
    state_bytes: int = 0
    own_states: int = 1
    target_itl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot; counts are of now, but for `num_preemptions` and those of guesses, which are
    since start. States are slots of them: all, those that are held, and those in which a prefix can
    be found. num_drafts: how often a sequence had guesses in a step; draft tokens are the guesses,
    accepted ones those that came true. archive: of blocks outside the cache, where some are kept.
    num_late_kernels: compiled for the device since it was ready; None if nobody knows.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_blocks_used: int = 0
    num_blocks_cached: int = 0
    num_preemptions: int = 0
    num_states: int = 0
    num_states_used: int = 0
    num_states_cached: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    archive: ArchiveStatistics | None = None
    num_late_kernels: int | None = None

    @property
    def cache_usage(self) -> float:
        """Which part of the KV cache's blocks is held by requests, between 0 and 1."""
        return self.num_blocks_used / self.num_blocks if self.num_blocks else 0.0
