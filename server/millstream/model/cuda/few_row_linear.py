"""A linear layer whose products with few rows are computed by our kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from millstream.model.cuda.product_tiles import ROW_COUNTS, ProductTile, row_count

Multiply = Callable[[Tensor, Tensor, Tensor | None, ProductTile], Tensor]
"""`triton_products.multiply()`."""

_ALIGNMENT = 16  # bytes


class FewRowLinear(nn.Module):
    """Computes what the nn.Linear it replaces computes, and shares its weight.

    Products with other numbers of rows than those that have a tile are torch's.
    """

    def __init__(
        self, linear: nn.Linear, tiles: Mapping[int, ProductTile], multiply: Multiply
    ) -> None:
        """tiles: by a number of ROW_COUNTS; multiply: computes such a product."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        counts = [row_count(rows) for rows in range(ROW_COUNTS[-1] + 1)]
        self._tiles = [None if count is None else tiles.get(count) for count in counts]
        self._multiply = multiply

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        rows = hidden.shape[:-1].numel()
        tile = self._tiles[rows] if rows < len(self._tiles) else None
        if tile is None or hidden.dtype != self.weight.dtype or not are_alike(hidden):
            return F.linear(hidden, self.weight, self.bias)
        flat = hidden.view(rows, self.in_features)
        out = self._multiply(flat, self.weight, self.bias, tile)
        return out.view(*hidden.shape[:-1], self.out_features)


def are_alike(*tensors: Tensor | None) -> bool:
    """Whether the kernels take all of them as they lie: another address would be another kernel,
    compiled while everybody waits."""
    return all(
        tensor is None or (tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0)
        for tensor in tensors
    )
