"""Changes a loaded model in place: kernels for its small operations, merged and packed linears.

On a CPU the kernels are compiled ones, on CUDA Triton's.

Rules: norms and gated MLPs are replaced wherever they stand; the decoder layers as a whole where
all of them are usual ones. A model that does not run or computes something else with its layers as
a stack gets them back. Called once, before the model's linears are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.model.checks.model_failures import MODEL_FAILURES, in_short
from millstream.model.checks.probe import ProbedLayer
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.packing import packing
from millstream.model.decoder.called_operators import OperatorRecorder
from millstream.model.decoder.compiled_layers import compile_stack
from millstream.model.decoder.parts import GatedMLP, Pack, find_gated_mlp, find_norm
from millstream.model.decoder.recognise import (
    LayerModules,
    RecognisedParts,
    UnusualError,
    recognise_layers,
)
from millstream.model.decoder.runs import DenseBatch, PathComparison, Sample, observe
from millstream.model.decoder.stack import DecoderStack
from millstream.model.forward import Forward
from millstream.model.layer_operations import LayerOperations, Norm
from millstream.model.speedups import Speedups
from millstream.model.tolerance import STACKED_LOGITS, logits_difference

_ALL = Speedups()


class Fused(NamedTuple):
    """What was done, in a few words. norms: the modules that are norms; stack, comparison: where
    the layers are a stack now."""

    summary: str
    norms: Mapping[nn.Module, Norm]
    stack: DecoderStack | None = None
    comparison: PathComparison | None = None

    @property
    def is_whole(self) -> bool:
        """Whether kernels compute all products of all layers."""
        compiled = None if self.stack is None else self.stack.compiled
        return compiled is not None and compiled.is_whole


class Means(NamedTuple):
    """What a model is made faster with on its device. pack: makes a linear layer what the device
    multiplies best; kernels: compiled ones, which may run all layers in one call."""

    operations: LayerOperations
    pack: Pack
    kernels: Kernels | None = None

    @classmethod
    def of_kernels(cls, kernels: Kernels) -> Means:
        """Those of a CPU."""
        return cls(LayerOperations.of(kernels), packing(kernels), kernels)


@torch.inference_mode()
def fuse(
    model: PreTrainedModel,
    forward: Forward,
    layers: Mapping[int, ProbedLayer],
    *,
    means: Means,
    max_context: int,
    speedups: Speedups = _ALL,
) -> Fused:
    """Replaces what is recognised of the model and allowed by `speedups`. forward: of the model."""
    operations = means.operations
    like = torch.empty(0, dtype=model.dtype, device=model.device)
    norms = {m: norm for m in model.modules() if (norm := find_norm(m, operations)) is not None}
    mlps = {
        m: mlp for m in model.modules() if (mlp := find_gated_mlp(m, operations, like)) is not None
    }
    for module, norm in norms.items():
        setattr(module, "forward", _norm_forward(module, norm, operations))  # noqa: B010
    recognised = RecognisedParts(
        operations, norms, mlps, {index: layer.shape for index, layer in layers.items()}
    )
    sample = Sample.spread(
        vocab_size=model.config.get_text_config().vocab_size,
        max_context=max_context,
        device=model.device,
    )
    summary = f"{len(norms)} norms and {len(mlps)} gated MLPs"
    stack: DecoderStack | None = None
    try:
        if not speedups.stack:
            raise UnusualError("not wanted")
        if forward.splitting is not None:
            raise UnusualError("some keep states")
        stack = _stack(model, forward, recognised, sample)
    except UnusualError as error:
        summary += f"; its layers are run one by one: {error}"
    else:
        stack.merge(means.pack)
    for module, mlp in mlps.items():
        mlp.merge(means.pack)
        _replace_mlp(module, mlp)
    if stack is None:
        return Fused(summary, norms)
    summary += f"; {len(layers)} decoder layers as one, "
    if means.kernels is None:
        return Fused(summary + "called from Python", norms, stack)
    comparison = PathComparison(forward, sample, recognised.shapes, means.kernels, model.dtype)
    reason = compile_stack(stack, comparison) if speedups.compiled_stack else "not wanted"
    summary += "in one call" if reason is None else f"called from Python: {reason}"
    return Fused(summary, norms, stack, comparison)


def _stack(
    model: PreTrainedModel, forward: Forward, recognised: RecognisedParts, sample: Sample
) -> DecoderStack:
    """Puts the stack in the place of the model's layers. Raises UnusualError and leaves them."""
    parent, name, layers = _find_layers(model, len(recognised.shapes))
    parts = [LayerModules.of(layer) for layer in layers]
    kept = [module for part in parts for module in part.modules()]
    try:
        seen = observe(forward, sample, layers=list(layers), parts=kept)
        stack = recognise_layers(layers, parts, recognised, seen)
        setattr(parent, name, nn.ModuleList([stack]))
        logits = sample.run(forward, DenseBatch(OperatorRecorder()))
        if not logits_difference(logits, seen.logits) <= STACKED_LOGITS[logits.dtype]:
            raise UnusualError("as a stack they compute something else")
    except MODEL_FAILURES as error:
        setattr(parent, name, layers)
        raise UnusualError(in_short(error)) from error
    except UnusualError:
        setattr(parent, name, layers)
        raise
    return stack


def _find_layers(model: nn.Module, count: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of decoder layers, and where it hangs."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if not isinstance(child, nn.ModuleList) or len(child) != count:
                continue
            if all(hasattr(layer, "self_attn") for layer in child):
                return parent, name, child
    raise UnusualError("there is no list of them")


def _norm_forward(
    module: nn.Module, norm: Norm, operations: LayerOperations
) -> Callable[[Tensor], Tensor]:
    original: Callable[[Tensor], Tensor] = module.forward

    def forward(hidden_states: Tensor) -> Tensor:
        if hidden_states.dtype != norm.weight.dtype:
            return original(hidden_states)
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        found = operations.rms_norm(rows, norm.weight, norm.eps, unit_offset=norm.unit_offset)
        return found.view(hidden_states.shape)

    return forward


def _replace_mlp(module: nn.Module, mlp: GatedMLP) -> None:
    def forward(hidden_states: Tensor) -> Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        return mlp(rows).view(*hidden_states.shape[:-1], -1)

    setattr(module, "forward", forward)  # noqa: B010
    for name, _ in list(module.named_children()):
        setattr(module, name, None)  # the weights are free now
