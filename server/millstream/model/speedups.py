"""Which optimisations a runner may use, as one value.

None of them changes what is computed but for rounding, and each is still only used where it fits
the model and passes its own check. They are switched off to measure what each of them gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from millstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Speedups:
    """All optimisations by default. Those from `decoder` to `whole_model` each need the one before.

    kernels: compiled CPU kernels; auto leaves them out where a model is too small to compile for.
    decoder: kernels for norms and MLPs, and merged linear layers.
    stack: all decoder layers as one module.
    compiled_stack: this module in one compiled call.
    whole_model: the embedding and the output layer in the same call.
    graphs: decode steps from captured CUDA graphs.
    draw_graphs: the tokens of such steps from graphs, too.
    prompt_graphs: steps with prompts from such graphs, too, where decode steps are.
    dense_prompts: on CUDA, prompts attended over keys that are gathered from their blocks.
    few_row_products: on CUDA, products with few rows by kernels of our own, where they are faster.
    overlapping_launches: on CUDA, kernels that are launched while the one before them ends.
    """

    kernels: Literal["auto", "on", "off"] = "auto"
    decoder: bool = True
    stack: bool = True
    compiled_stack: bool = True
    whole_model: bool = True
    graphs: bool = True
    draw_graphs: bool = True
    prompt_graphs: bool = True
    dense_prompts: bool = True
    few_row_products: bool = True
    overlapping_launches: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Speedups:
        """What `--native-kernels` allows."""
        return cls(kernels=settings.native_kernels)
