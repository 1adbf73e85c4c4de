"""The order of start-up: from a loaded model to a runner that serves it.

1. Kernels first: which linear layers can be packed, and how, depends on them.
2. Quantised layers are laid out before the model's own logits are taken: the layout rounds, and
   what is compared later must have been rounded alike.
3. The model's own logits, by its own attention, while it is still as it was loaded.
4. The probe, which runs the model with our attention in place of its own: it tells the shapes and
   windows that all later steps need; before it, what other layers keep. `Forward` before any
   module is changed: changes are compared through it.
5. Modules are made faster; only now is it known which threads compute.
6. Ways to attend are tried on a device, which takes memory for a while.
7. The cache takes the memory that is left, so all weights must be laid out by now. On a device what
   steps need beside it is measured first.
8. The packer writes to the cache, and is made for it. The paged path is verified against the logits
   of step 3, before anything is built on it.
9. Steps are captured once they are known to be right. Other steps are run, so that no kernel is
   compiled later, and the memory that steps need is taken by then; from then on kernels that are
   compiled all the same are counted.
10. Batch-invariant computation last: its bits are compared with those of the verified path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from millstream.core.status import Report, unreported
from millstream.errors import StartupError
from millstream.model.acceleration import accelerate, load_kernels, prepare_quantized
from millstream.model.block_files.opening import open_archive
from millstream.model.checks.model_failures import refusing
from millstream.model.checks.probe import ProbedLayer, probe_layers
from millstream.model.checks.verify import own_logits, verify
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.native_backend import NativeBackend
from millstream.model.cuda.late_kernels import LateKernels
from millstream.model.cuda.overlap_trial import can_overlap
from millstream.model.cuda.selection import find_backends
from millstream.model.cuda.staging import Staging
from millstream.model.description import describe
from millstream.model.device_preparation import DevicePreparation
from millstream.model.execution import EagerExecution, Execution
from millstream.model.forward import Forward
from millstream.model.invariant_execution import invariant_execution, prepare_invariant
from millstream.model.loading.model import LoadedModel, load_model
from millstream.model.loading.tokenizer import read_tokenizer
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.paging.packer import Packer
from millstream.model.runner import ModelRunner, no_count
from millstream.model.sampling.grammars import Grammars
from millstream.model.sampling.sampler import Sampler, best_tokens
from millstream.model.sizing import make_caches, max_blocks_per_request, max_step_tokens
from millstream.model.speedups import Speedups
from millstream.model.states.observation import ObservedStates, observe_states
from millstream.settings import Settings

log = logging.getLogger(__name__)


def runner_factory(
    folder: Path,
    settings: Settings,
    speedups: Speedups | None = None,
    *,
    report: Report = unreported,
) -> Callable[[], ModelRunner]:
    """A factory that loads the model when called: in the engine, not where it is made.

    report: hears how far it is.
    """
    trust, gguf = settings.trust_remote_code, settings.gguf_file

    def read() -> str:
        return read_tokenizer(folder, trust_remote_code=trust, gguf_file=gguf)

    def load_and_build() -> ModelRunner:
        grammars = _grammars(read, settings)
        loaded = load_model(folder, settings, report=report)
        runner = build_runner(loaded, settings, grammars=grammars, speedups=speedups, report=report)
        grammars.prepare()  # now that nobody waits for the interpreter
        return runner

    return load_and_build


def shared_runner(
    loaded: LoadedModel, settings: Settings, *, read_tokenizer: Callable[[], str]
) -> ModelRunner:
    """A runner over a model that somebody else loaded. read_tokenizer: gives its tokenizer.json."""
    return build_runner(loaded, settings, grammars=_grammars(read_tokenizer, settings))


def _grammars(read_text: Callable[[], str], settings: Settings) -> Grammars:
    num_requests = settings.max_concurrent_requests + settings.max_queue_size
    return Grammars(read_text, max_compiled=max(128, num_requests))  # each may have its own


def build_runner(
    loaded: LoadedModel,
    settings: Settings,
    *,
    grammars: Grammars | None = None,
    speedups: Speedups | None = None,
    report: Report = unreported,
) -> ModelRunner:
    """A runner over a loaded model, whose modules are changed in place unless it is shared.

    grammars: of the model, if requests may have a grammar. speedups: those of the settings where
    they are left out. report: hears how far it is. Raises StartupError if memory does not suffice,
    if the paged path computes other logits than the model itself, or if a promise of the settings
    cannot be kept.
    """
    speedups = speedups or Speedups.of(settings)
    if settings.batch_invariant:
        prepare_invariant(loaded)
    num_parameters = loaded.num_parameters or loaded.model.num_parameters()
    num_bytes = num_parameters * loaded.dtype.itemsize
    report("preparing kernels")
    kernels = load_kernels(loaded, settings, speedups, num_bytes=num_bytes)  # 1
    prepare_quantized(loaded, kernels)  # 2
    report("probing layers")
    expected = own_logits(loaded)  # 3
    observed, layers = probe_model(loaded, settings)  # 4
    reaches = {i: layer.reach for i, layer in layers.items()}
    counts = any(layer.counts_by_cache for layer in layers.values())
    forward = Forward(loaded.model, reaches, observed, counts_by_cache=counts)
    report("preparing layers")
    threads = accelerate(loaded, forward, layers, kernels, speedups)  # 5
    shapes = {i: layer.shape for i, layer in layers.items()}
    state_shapes = {} if observed is None else observed.shapes
    backends, staging = _attention(loaded, settings, shapes, kernels, speedups)  # 6
    device = needed = None
    if staging is not None:
        report("measuring memory")
        device = DevicePreparation(
            loaded, settings, backends=backends, staging=staging, speedups=speedups
        )
        needed = device.needed_bytes(forward, threads, shapes, state_shapes)
    cache, states = make_caches(loaded, settings, shapes, state_shapes, needed_bytes=needed)  # 7
    packer = Packer(cache, backends, staging, states=states)
    info = describe(
        loaded, settings, cache, num_parameters=num_parameters, packer=packer, states=states
    )
    report("comparing logits")
    verify(loaded, cache, packer, forward, expected)  # 8
    eager = EagerExecution(packer, forward, threads, plans_ahead=staging is not None)
    execution: Execution = eager
    if device is not None:
        report("capturing steps")
        execution = device.prepare(eager, cache, states)  # 9
    if settings.batch_invariant:
        execution = invariant_execution(loaded, eager, cache, max_context=info.max_context)  # 10
    sampler = Sampler(grammars, best_tokens=kernels.best_tokens if kernels else best_tokens)
    archive = open_archive(loaded, settings, cache=cache, info=info, speedups=speedups)
    return ModelRunner(
        execution=execution,
        sampler=sampler,
        cache=cache,
        info=info,
        states=states,
        archive=archive,
        count_late_kernels=LateKernels.watch() if staging else no_count,
    )


def probe_model(
    loaded: LoadedModel, settings: Settings
) -> tuple[ObservedStates | None, dict[int, ProbedLayer]]:
    """What the model's layers keep and see. Raises StartupError if it cannot be served exactly."""
    with refusing(loaded.model):
        observed = observe_states(loaded.model, loaded.device)
    if observed is not None and observed.shapes and settings.batch_invariant:
        raise StartupError(
            f"--batch-invariant: {type(loaded.model).__name__} keeps states, and how their layers "
            "round depends on the batch; leave it out for this model"
        )
    layers = probe_layers(
        loaded.model, max_context=loaded.max_context, device=loaded.device, observed=observed
    )
    return observed, layers


def _attention(
    loaded: LoadedModel,
    settings: Settings,
    shapes: dict[int, LayerShape],
    kernels: Kernels | None,
    speedups: Speedups,
) -> tuple[list[AttentionBackend], Staging | None]:
    """Attention backends for this device, best first, and how steps are sent there, if they are."""
    if loaded.device.type != "cuda":
        return ([] if kernels is None else [NativeBackend(kernels)]), None
    num_heads = getattr(loaded.model.config.get_text_config(), "num_attention_heads", 0)

    def heads_of(shape: LayerShape) -> int:
        return max(num_heads // shape.kv_heads, 1) * shape.kv_heads

    backends = find_backends(
        list(shapes.values()),
        num_heads=heads_of,
        block_size=settings.block_size,
        dtype=loaded.dtype,
        device=loaded.device,
        most_dense_keys=loaded.max_context if speedups.dense_prompts else 0,
        overlaps=speedups.overlapping_launches and can_overlap(loaded.device),
    )
    return backends, Staging.for_steps(
        loaded.device,
        max_tokens=max_step_tokens(loaded, settings),
        max_rows=settings.max_concurrent_requests,
        max_blocks=max_blocks_per_request(loaded, settings),
    )
