"""What is done with a loaded model before it serves: kernels, merged and packed linear layers.

Rule: a model that others use as well keeps its modules as they are.
"""

from __future__ import annotations

import logging
import threading

import torch

from millstream.errors import StartupError
from millstream.model.checks.probe import ProbedLayer
from millstream.model.cpu import kernels as native
from millstream.model.cpu.packed_states import pack_states
from millstream.model.cpu.packing import pack_grouped, pack_int8, pack_linears, quantize_output
from millstream.model.cpu.threads import Threads
from millstream.model.cuda.layer_trial import find_layer_operations
from millstream.model.cuda.overlap_trial import can_overlap
from millstream.model.cuda.product_trial import FewRowProducts, find_products
from millstream.model.decoder import Fused, Means, Pack, fuse, take_shortcut
from millstream.model.forward import Forward
from millstream.model.grouped import GroupedLinear
from millstream.model.loading.hardware import SMALL_MODEL_BYTES
from millstream.model.loading.memory import available_bytes
from millstream.model.loading.model import LoadedModel
from millstream.model.speedups import Speedups
from millstream.settings import Settings

log = logging.getLogger(__name__)


def load_kernels(
    loaded: LoadedModel, settings: Settings, speedups: Speedups, *, num_bytes: int
) -> native.Kernels | None:
    """Compiled kernels where they can be used and a model of `num_bytes` is worth compiling for."""
    wanted = speedups.kernels
    reasons = {
        "--native-kernels is off": wanted == "off",
        "the model is small": wanted == "auto" and num_bytes <= SMALL_MODEL_BYTES,
        "they are for CPUs": loaded.device.type != "cpu",
        f"there are none for {loaded.dtype}": loaded.dtype not in native.DTYPES,
        "--batch-invariant has its own": settings.batch_invariant,
    }
    for reason, is_so in reasons.items():
        if is_so:
            log.info("no compiled kernels: %s", reason)
            return None
    return native.load()


def prepare_quantized(loaded: LoadedModel, kernels: native.Kernels | None) -> None:
    """Lays quantised layers out. Where kernels multiply those that are not torchao's own, and those
    of --quantize, the output layer becomes int8. Raises StartupError for layers in groups without
    kernels if memory is short."""
    if loaded.is_shared:
        return
    is_native = False
    num_int8 = pack_int8(loaded.model, kernels)
    if num_int8:
        is_native = kernels is not None and kernels.fast_products()[1]
        log.info("laid out the int8 weights of %d linear layers for this CPU", num_int8)
    num_grouped = sum(isinstance(module, GroupedLinear) for module in loaded.model.modules())
    if num_grouped:
        is_native = _prepare_grouped(loaded, kernels)
    if kernels is not None and (num_grouped or (num_int8 and loaded.quantization == "int8")):
        is_int8 = is_native and quantize_output(loaded.model, kernels)
        log.info("the output layer %s int8", "is" if is_int8 else "is not")


def _prepare_grouped(loaded: LoadedModel, kernels: native.Kernels | None) -> bool:
    if kernels is None or not kernels.fast_products()[3]:
        _require_memory_of_plain_layers(loaded)
    num_packed, is_native = pack_grouped(loaded.model, kernels, loaded.dtype)
    how = "multiplied by the kernels" if is_native else f"made {loaded.dtype} for lack of kernels"
    log.info("%s weights of %d linear layers are %s", loaded.quantization, num_packed, how)
    return is_native


def _require_memory_of_plain_layers(loaded: LoadedModel) -> None:
    layers = [module for module in loaded.model.modules() if isinstance(module, GroupedLinear)]
    numbers = sum(layer.in_features * layer.out_features for layer in layers)
    needed, free = numbers * loaded.dtype.itemsize, available_bytes(loaded.device)
    if needed > free:
        raise StartupError(
            "without compiled kernels (the log says why there are none) the model's "
            f"{loaded.quantization} layers are computed in "
            f"{str(loaded.dtype).removeprefix('torch.')}, which takes {needed / 2**30:,.2f} GiB "
            f"more, and {free / 2**30:,.2f} GiB are free. Install a C++ compiler."
        )


def accelerate(
    loaded: LoadedModel,
    forward: Forward,
    layers: dict[int, ProbedLayer],
    kernels: native.Kernels | None,
    speedups: Speedups,
) -> Threads:
    """Makes the model's modules faster where they are ours alone; says who computes them."""
    if kernels is not None and forward.observed is not None and forward.splitting is not None:
        num_whole = pack_states(forward.observed, forward.splitting, kernels)
        log.info(
            "kernels mix the rows of %d of %d layers with states in one call",
            num_whole,
            len(forward.observed.carriers),
        )
    found = Fused("", {})
    if not loaded.is_shared and loaded.device.type == "cuda":
        _accelerate_on_device(loaded, forward, layers, speedups)
    if not loaded.is_shared and loaded.device.type == "cpu":
        found = _fuse_on_cpu(loaded, forward, layers, kernels, speedups)
    # A thread that first uses torch while its count is 1 keeps that: not in others' programs.
    is_ours = threading.current_thread() is threading.main_thread()
    return Threads(kernels, is_alone=found.is_whole and is_ours)


def _fuse_on_cpu(
    loaded: LoadedModel,
    forward: Forward,
    layers: dict[int, ProbedLayer],
    kernels: native.Kernels | None,
    speedups: Speedups,
) -> Fused:
    """Runs layers by compiled kernels where there are some, and lays linear layers out."""
    found = Fused("", {})
    if kernels is not None and speedups.decoder:
        found = fuse(
            loaded.model,
            forward,
            layers,
            means=Means.of_kernels(kernels),
            max_context=loaded.max_context,
            speedups=speedups,
        )
        log.info("compiled kernels compute attention, %s", found.summary)
    if num_packed := pack_linears(loaded.model, kernels):
        log.info("laid out the weights of %d linear layers for this CPU", num_packed)
    if speedups.whole_model and found.stack is not None and found.comparison is not None:
        reason = take_shortcut(
            loaded.model,
            found.stack,
            found.comparison,
            norms=found.norms,
            max_context=loaded.max_context,
        )
        log.info("from token ids to logits in one call: %s", reason or "yes")
    return found


def _accelerate_on_device(
    loaded: LoadedModel,
    forward: Forward,
    layers: dict[int, ProbedLayer],
    speedups: Speedups,
) -> None:
    """Fuses the layers of a model on CUDA, and finds out who multiplies few rows by each weight."""
    overlaps = speedups.overlapping_launches and can_overlap(loaded.device)
    products: FewRowProducts | None = None
    if speedups.few_row_products:
        products = find_products(loaded.device, overlaps=overlaps)
    if speedups.decoder:
        pack = (lambda linear: linear) if products is None else products.pack
        _fuse_on_device(loaded, forward, layers, pack, speedups, overlaps=overlaps)
    if products is not None:
        products.replace_in(loaded.model)
    # What merging and timings have used is free for the KV cache, which is given what is free.
    torch.cuda.empty_cache()


def _fuse_on_device(
    loaded: LoadedModel,
    forward: Forward,
    layers: dict[int, ProbedLayer],
    pack: Pack,
    speedups: Speedups,
    *,
    overlaps: bool,
) -> None:
    """Merges linear layers, which `pack` then gets, with kernels for what is between them.

    overlaps: the kernels may begin before the one before them ends.
    """
    config = loaded.model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("hidden_size", "intermediate_size")]
    operations = find_layer_operations(
        [layer.shape for layer in layers.values()],
        sizes=[size for size in sizes if isinstance(size, int)],
        dtype=loaded.dtype,
        device=loaded.device,
        overlaps=overlaps,
    )
    if operations is None:
        return
    found = fuse(
        loaded.model,
        forward,
        layers,
        means=Means(operations, pack),
        max_context=loaded.max_context,
        speedups=speedups,
    )
    log.info("kernels compute %s", found.summary)
