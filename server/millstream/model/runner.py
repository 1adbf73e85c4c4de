"""The model side of the engine: a plan in, sampled tokens out.

Rules: one forward call per step; logits only for rows that are sampled; the paged path has been
compared with the model's own attention before anything is served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from millstream.core.plan import Chunk, Plan, StepOutput
from millstream.core.status import EngineInfo
from millstream.errors import StartupError
from millstream.model.build import load_kernels, prepare, prepare_int8
from millstream.model.checks.probe import probe_layers
from millstream.model.checks.verify import own_logits, verify
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.native_backend import NativeBackend
from millstream.model.cuda.steps import CudaSteps, make_steps
from millstream.model.forward import Forward
from millstream.model.invariant.check import InvarianceCheck
from millstream.model.invariant.modules import make_invariant, use_separate_experts
from millstream.model.invariant.operators import InvariantOperators
from millstream.model.invariant.tiled_backend import TiledBackend
from millstream.model.loading.model import LoadedModel, load_model
from millstream.model.loading.tokenizer import read_tokenizer
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import fill_unknown_tokens
from millstream.model.paging.packer import Packer
from millstream.model.sampling.grammars import Grammars
from millstream.model.sampling.logprobs import prompt_logprobs, sampled_logprobs
from millstream.model.sampling.sampler import Drawing, Sampler, best_tokens
from millstream.model.sizing import make_cache, max_step_tokens
from millstream.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    """A step whose forward pass is under way. logits: as of `ModelRunner.logits()`."""

    plan: Plan
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """A step whose tokens are under way. chunks: that are sampled; None where any token will do."""

    launched: Launched
    chunks: list[Chunk | None]
    drawing: Drawing

    @property
    def request_ids(self) -> list[int]:
        """Of all chunks that are sampled."""
        return [chunk.request_id for chunk in self.launched.plan.chunks if chunk.is_last]


class ModelRunner:
    """Implements the engine loop's Runner over one loaded model and its KV cache."""

    def __init__(
        self,
        loaded: LoadedModel,
        settings: Settings,
        grammars: Grammars | None = None,
    ) -> None:
        """Sizes the cache, compares the paged path with the model's own, warms up.

        grammars: of the model, if requests may have a grammar.
        Raises StartupError if memory does not suffice or the two differ.
        """
        if settings.batch_invariant:
            _require_cpu(loaded)
            use_separate_experts(loaded.model)
        num_parameters = loaded.model.num_parameters()
        kernels = load_kernels(loaded, settings, num_parameters * loaded.dtype.itemsize)
        prepare_int8(loaded, kernels, settings)
        expected = own_logits(loaded)
        layers = probe_layers(loaded.model, max_context=loaded.max_context, device=loaded.device)
        forward = Forward(loaded.model, {i: layer.window for i, layer in layers.items()})
        self._forward: Callable[..., Tensor] = forward
        self._threads = prepare(loaded, forward, layers, kernels)
        shapes = {i: layer.shape for i, layer in layers.items()}
        self._cache = make_cache(loaded, settings, shapes)
        self._cuda: CudaSteps | None = None
        if loaded.device.type == "cuda":
            self._cuda = make_steps(
                *(loaded, settings, self._cache, shapes),
                max_tokens=max_step_tokens(loaded, settings),
            )
        self._packer = self._make_packer(kernels)
        self.plans_ahead = loaded.device.type == "cuda"
        self.info = _describe(
            loaded,
            settings,
            self._cache,
            num_parameters=num_parameters,
            backend=self._packer.backend_name,
        )
        verify(loaded, self._cache, self._packer, forward, expected)
        if self._cuda is not None:
            self._cuda.capture(forward)
        best = best_tokens if kernels is None else kernels.best_tokens
        self._sampler = Sampler(grammars, best_tokens=best)
        if settings.batch_invariant:
            self._make_invariant(loaded)

    def _make_packer(self, kernels: Kernels | None) -> Packer:
        """The packer for this device."""
        if self._cuda is not None:
            return self._cuda.packer
        return Packer(self._cache, [] if kernels is None else [NativeBackend(kernels)])

    def _make_invariant(self, loaded: LoadedModel) -> None:
        config = loaded.model.config.get_text_config()
        check = InvarianceCheck(
            self._cache, vocab_size=config.vocab_size, max_context=self.info.max_context
        )
        default = check.sample(self.logits)
        self._packer = Packer(self._cache, [TiledBackend(self._cache.padding_block)])
        if loaded.is_shared:  # its modules are not ours to change
            self._forward = InvariantOperators().within(self._forward)
        else:
            make_invariant(loaded.model, lambda: check.sample(self.logits))
        check.run(self.logits, default)

    def step(self, plan: Plan) -> StepOutput:
        """Computes the plan. Raises what torch raises."""
        return self.finish(self.draw(self.launch(plan)))

    def launch(self, plan: Plan, after: Sampling | None = None) -> Launched:
        """Queues the forward pass: a CUDA device computes while the host does something else.

        after: the step that draws what the plan lacks. It need not be finished, all others must be.
        """
        return Launched(plan, self.logits(plan, after))

    def draw(
        self, launched: Launched, *, is_wanted: Callable[[int], bool] = lambda _: True
    ) -> Sampling:
        """Queues the draws. The chunks' histories are whole by now; nothing else is done for those
        whose request ids are not wanted."""
        sampled = (chunk for chunk in launched.plan.chunks if chunk.is_last)
        chunks = [chunk if is_wanted(chunk.request_id) else None for chunk in sampled]
        logits = launched.logits[: len(chunks)]
        with self._threads.operations(logits.numel()):
            drawing = self._sampler.launch(logits, chunks)
        return Sampling(launched, chunks, drawing)

    def finish(self, sampling: Sampling) -> StepOutput:
        """Waits for the tokens."""
        logits, plan, chunks = sampling.launched.logits, sampling.launched.plan, sampling.chunks
        tokens, late = self._sampler.finish(sampling.drawing)
        return StepOutput(
            tokens,
            sampled_logprobs(logits[: len(chunks)], chunks, tokens),
            prompt_logprobs(logits[len(chunks) :], plan.chunks),
            late=frozenset(sampling.request_ids[row] for row in late),
        )

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears cache blocks whose content cannot be trusted to be finite."""
        self._cache.scrub(blocks)

    @torch.inference_mode()
    def logits(self, plan: Plan, after: Sampling | None = None) -> Tensor:
        """Logits [s + c, vocab]: of the last token of every chunk that has `sampling`, then of
        every position that is `scored`. after: see `launch()`."""

        def fill(token_ids: Tensor) -> None:
            if after is not None:
                fill_unknown_tokens(token_ids, plan, after.drawing.tokens, after.request_ids)

        if self._cuda is not None and (logits := self._cuda.logits(plan, fill)) is not None:
            return logits
        model_input = self._packer.pack(plan)
        fill(model_input.input_ids[0])
        with self._threads.forward():
            return self._forward(
                model_input.input_ids,
                model_input.positions,
                rows=model_input.wanted,
                batch=model_input.batch,
            )


def _require_cpu(loaded: LoadedModel) -> None:
    if loaded.device.type != "cpu":
        raise StartupError(
            f"--batch-invariant: implemented for the CPU only; on {loaded.device.type} leave it out"
        )


def _describe(
    loaded: LoadedModel,
    settings: Settings,
    cache: KVCache,
    *,
    num_parameters: int,
    backend: str,
) -> EngineInfo:
    num_blocks = cache.num_blocks
    max_context = min(loaded.max_context, num_blocks * settings.block_size)
    if max_context < loaded.max_context:
        log.warning("the KV cache holds %d tokens; longer requests are refused", max_context)
    config, device = loaded.model.config.get_text_config(), loaded.device
    return EngineInfo(
        architecture=type(loaded.model).__name__,
        num_parameters=num_parameters,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=str(loaded.dtype).removeprefix("torch."),
        quantization=loaded.quantization,
        attention_backend=backend,
        num_blocks=num_blocks,
        block_size=settings.block_size,
        kv_cache_bytes=cache.num_bytes,
        max_context=max_context,
        max_step_tokens=max_step_tokens(loaded, settings),
        vocab_size=config.vocab_size,
        stop_token_ids=loaded.stop_token_ids,
        defaults=loaded.defaults,
    )


def build_runner(folder: Path, settings: Settings) -> Callable[[], ModelRunner]:
    """A factory that loads the model when called: in the engine, not where it is made."""
    trust = settings.trust_remote_code

    def build() -> ModelRunner:
        grammars = Grammars(lambda: read_tokenizer(folder, trust_remote_code=trust))
        runner = ModelRunner(load_model(folder, settings), settings, grammars)
        grammars.prepare()  # now that nobody waits for the interpreter
        return runner

    return build
