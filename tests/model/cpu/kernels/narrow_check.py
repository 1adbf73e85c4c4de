"""Products compiled for narrower vectors than this processor's, compared with plain torch.

Run: python -m tests.model.cpu.kernels.narrow_check LIBRARY
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from millstream.model.grouped import FORMATS, grouped_linear
from millstream.model.reference import int8_linear, pack_weight
from tests.model.cpu.kernels.test_native_grouped import rows, weight

COUNTS = (1, 2, 3, 4, 5, 7)

SOURCE = """
#include <torch/library.h>

#include "grouped.h"

namespace millstream {
TORCH_LIBRARY(narrow, library) {
  library.def("grouped_linear(Tensor x, Tensor packed, Tensor scales) -> Tensor",
              [](const Tensor& x, const Tensor& packed, const Tensor& scales) {
                return grouped_linear(x, packed, scales, {});
              });
  library.def("int8_linear(Tensor x, Tensor packed, Tensor sums, Tensor scales) -> Tensor",
              [](const Tensor& x, const Tensor& packed, const Tensor& sums, const Tensor& scales) {
                return int8_linear(x, packed, sums, scales, {});
              });
  library.def("are_fast() -> bool", [] {
    return GROUPS_ARE_FAST && Int8Format::IS_FAST && Int12Format::IS_FAST;
  });
}
}  // namespace millstream
"""

Product = Callable[[Tensor], Tensor]


def products(outputs: int, inputs: int) -> Iterator[tuple[str, Product, Product]]:
    """Name, the narrow product and its meaning, both of rows [T, inputs]."""
    narrow = torch.ops.narrow
    for form in FORMATS:
        packed, scales = weight(outputs, inputs, form)
        arguments = {"packed": packed, "scales": scales}
        ours, meant = (
            partial(narrow.grouped_linear, **arguments),
            partial(grouped_linear, **arguments),
        )
        yield str(form), ours, meant
    numbers = torch.randint(-128, 128, (outputs, inputs)).to(torch.int8)
    numbers.clamp_(-127)
    numbers[0], numbers[1] = -127, 127  # the largest sums there are
    arguments = {
        "sums": numbers.sum(1, dtype=torch.int32),
        "scales": torch.full((outputs,), 1 / (100 * inputs**0.5)),
    }
    for bits in (8, 12):
        arguments["packed"] = pack_weight(numbers, activation_bits=bits)
        ours, meant = partial(narrow.int8_linear, **arguments), partial(int8_linear, **arguments)
        yield f"int8, rows of {bits} bits", ours, meant


def main() -> None:
    """Compares, and says so."""
    torch.ops.load_library(sys.argv[1])
    torch.manual_seed(0)
    for outputs, inputs in ((70, 100), (130, 9000)):
        for name, narrow, meant in products(outputs, inputs):
            x = rows(8, inputs, torch.float32)
            x[0] = 1  # rows that have no sign to lose
            together = narrow(x)
            torch.testing.assert_close(together, meant(x), rtol=1e-5, atol=1e-4)
            for count in COUNTS:
                assert torch.equal(narrow(x[:count]), together[:count]), name
    assert torch.ops.narrow.are_fast()
    print("equal")


if __name__ == "__main__":
    main()
