"""A linear layer while its weight is being read: the tensors of the checkpoint, as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.stored.formats import LayerSize
from millstream.model.stored.weight import StoredWeight

Parts = Mapping[str, Tensor]
Decode = Callable[[Parts, LayerSize], StoredWeight]


class StoredLinear(nn.Module):
    """Takes the place of a linear layer in the skeleton, so that its tensors have names to be
    loaded under. What serves is made of it once they have been read."""

    def __init__(self, linear: nn.Linear, parts: Parts, decode: Decode) -> None:
        """parts: tensors on the meta device, with the shapes and dtypes of the checkpoint."""
        super().__init__()
        self.size = LayerSize(linear.out_features, linear.in_features)
        self.bias = linear.bias
        self._names, self._decode = tuple(parts), decode
        for name, part in parts.items():
            self.register_parameter(name, nn.Parameter(part, requires_grad=False))

    def decoded(self) -> StoredWeight:
        """The weight. Raises UnknownLayoutError if its tensors have another layout."""
        parts: dict[str, Any] = {name: getattr(self, name).detach() for name in self._names}
        return self._decode(parts, self.size)

    def plain(self) -> nn.Linear:
        """A linear layer without a weight, and with this one's bias."""
        outputs, inputs = self.size
        linear = nn.Linear(inputs, outputs, bias=False, device="meta")
        linear.bias = self.bias
        return linear

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., inputs] -> [..., outputs], by the dequantised weight: the meaning."""
        weight = self.decoded().dequantized(torch.float32)
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden.float(), weight, bias).to(hidden.dtype)
