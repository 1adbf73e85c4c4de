"""What `--batch-invariant` makes of a model: an execution whose bits ignore all neighbours."""

from __future__ import annotations

from millstream.errors import StartupError
from millstream.model.execution import EagerExecution
from millstream.model.invariant.invariance_check import InvarianceCheck
from millstream.model.invariant.modules import make_invariant, use_separate_experts
from millstream.model.invariant.operators import InvariantOperators
from millstream.model.invariant.tiled_backend import TiledBackend
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.packer import Packer


def prepare_invariant(loaded: LoadedModel) -> None:
    """Has the model compute its experts one by one, before anything is measured on it. Raises
    StartupError on a device that keeps no such promise."""
    if loaded.device.type != "cpu":
        raise StartupError(
            f"--batch-invariant: implemented for the CPU only; on {loaded.device.type} leave it out"
        )
    use_separate_experts(loaded.model)


def invariant_execution(
    loaded: LoadedModel, eager: EagerExecution, cache: KVCache, *, max_context: int
) -> EagerExecution:
    """An execution that keeps the promise of `--batch-invariant`; raises StartupError where it
    would not. eager: the verified one, which is not used any more where modules are changed."""
    vocab_size = loaded.model.config.get_text_config().vocab_size
    check = InvarianceCheck(cache, vocab_size=vocab_size, max_context=max_context)
    default = check.sample(eager.logits)
    # The modules of a shared model are not ours to change.
    forward = InvariantOperators().within(eager.forward) if loaded.is_shared else eager.forward
    packer = Packer(cache, [TiledBackend(cache.padding_block)])
    execution = EagerExecution(packer, forward, eager.threads)
    if not loaded.is_shared:
        make_invariant(loaded.model, lambda: check.sample(execution.logits))
    check.run(execution.logits, default)
    return execution
