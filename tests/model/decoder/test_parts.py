"""Norms, gated MLPs and projections are recognised by what they compute, and compute it still."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from millstream.model.cpu import kernels as native
from millstream.model.cpu.packing import packing
from millstream.model.decoder.parts import Joined, find_gated_mlp, find_norm
from millstream.model.layer_operations import LayerOperations

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm])
def test_norms_are_found(
    kind: type[nn.Module], dtype: torch.dtype, kernels: native.Kernels
) -> None:
    module = kind(48, eps=1e-4)
    nn.init.normal_(module.weight, 0.5, generator=torch.Generator().manual_seed(1))
    found = find_norm(module.to(dtype), LayerOperations.of(kernels))
    assert found is not None
    assert (found.eps, found.unit_offset) == (1e-4, kind is Gemma2RMSNorm)


class OtherNorm(LlamaRMSNorm):
    """A norm whose eps is not the one that it carries, or that has a limit."""

    def __init__(self, *, eps: float = 1e-4, limit: float | None = None) -> None:
        super().__init__(48, eps=1e-4)
        self._real, self._limit = LlamaRMSNorm(48, eps=eps), limit

    def forward(self, hidden_states: Tensor) -> Tensor:
        found: Tensor = self._real(hidden_states)
        return found if self._limit is None else found.clamp(max=self._limit)


class GatedNorm(LlamaRMSNorm):
    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        found: Tensor = super().forward(hidden_states)
        return found if gate is None else found * F.silu(gate)


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(48, bias=False),
        OtherNorm(eps=3e-4),
        OtherNorm(limit=1e4),
        GatedNorm(48),
        nn.Linear(48, 48),
    ],
    ids=["mean is taken off", "other eps", "limit", "second input", "no norm"],
)
def test_other_norms_are_left_alone(module: nn.Module, kernels: native.Kernels) -> None:
    assert find_norm(module, LayerOperations.of(kernels)) is None


class MLP(nn.Module):
    """As most models have it. limit: of the gate."""

    def __init__(self, activation: str, *, limit: float | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.gate_proj, self.up_proj = nn.Linear(48, 96), nn.Linear(48, 96, bias=False)
            self.down_proj = nn.Linear(96, 48)
        self.act_fn, self._limit = ACT2FN[activation], limit

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x) if self._limit is None else self.gate_proj(x).clamp(self._limit)
        found: Tensor = self.down_proj(self.act_fn(gate) * self.up_proj(x))
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
@torch.inference_mode()
def test_gated_mlps_are_found_and_merged(
    activation: str, dtype: torch.dtype, kernels: native.Kernels
) -> None:
    module = MLP(activation).to(dtype)
    hidden = torch.randn(5, 48, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = module(hidden)
    found = find_gated_mlp(module, LayerOperations.of(kernels), like=torch.empty(0, dtype=dtype))
    assert found is not None
    found.merge(packing())
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(found(hidden), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "module",
    [MLP("relu"), MLP("gelu"), MLP("silu", limit=-1e4)],
    ids=["relu", "exact gelu", "limit"],
)
def test_other_mlps_are_left_alone(
    module: MLP, dtype: torch.dtype, kernels: native.Kernels
) -> None:
    like = torch.empty(0, dtype=dtype)
    assert find_gated_mlp(module.to(dtype), LayerOperations.of(kernels), like) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_layers_of_another_kind_are_not_merged(dtype: torch.dtype) -> None:
    class Special(nn.Linear):
        """A linear with a meaning of its own."""

        def forward(self, hidden: Tensor) -> Tensor:
            return super().forward(hidden) + 1

    linears = [kind(48, 32).to(dtype) for kind in (nn.Linear, Special, nn.Linear)]
    hidden = torch.randn(3, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = torch.cat([linear(hidden) for linear in linears], dim=-1)
    joined = Joined(linears)
    joined.merge(packing())
    torch.testing.assert_close(joined(hidden), expected, rtol=0.02, atol=0.02)
