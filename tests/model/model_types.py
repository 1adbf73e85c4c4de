"""Every model type of transformers' causal language models, tried: served, or refused and why.

`make models-table` writes the table. Each type is built small and
random, saved, loaded as a user would, and run through the engine: prompt chunks beside decodes,
windows shorter than the prompts, prefix hits. Served means that the answers equal those of
transformers' own `generate`, greedy and in float32; refused means that the start ended with a
StartupError. Anything else is a bug and raises.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from millstream.errors import StartupError
from millstream.model.runner import ModelRunner
from millstream.model.states.state_cache import bytes_per_slot
from tests.model.architectures import greedy, randomise
from tests.model.small_configs import small_config
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
SEEDS = 6  # tries for a model that does not answer everything alike
ANSWER_TOKENS = 16

SERVED, REFUSED, UNTRIED = "served", "refused", "not tried"

_HEAD = """\
# Which models are served

Made by `make models-table` with transformers {version}; a test repeats it. Every model type that
`AutoModelForCausalLM` knows is built small with random weights and served in float32.

- **served**: greedy answers equal those of transformers' own `generate`, token by token, batched
  with others, with prompts in chunks, windows shorter than the prompt, and prefix hits.
- **refused**: the server does not start and says why in one sentence. The reason below is that
  sentence, shortened.
- **not tried**: it cannot be built alone.

The server decides at each start from the model itself, not from this table: it checks the model's
masks, positions, layers and logits. So a model whose configuration differs in kind (other sorts of
layers, say) may be refused where this table says served, and the other way round. Types that also
take images or audio are served for text only.

Where layers keep states beside keys and values, the last column says which kinds, and how many
bytes they take for each sequence of the small model.

{served} of {total} model types are served.

| Model type | | Why not | States |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Verdict:
    """A row of the table. states: what its layers keep beside keys and values."""

    model_type: str
    status: str
    reason: str = ""
    states: str = ""


def model_types() -> list[str]:
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def judge(model_type: str, folder: Path) -> Verdict:
    """Runs the model type. Raises AssertionError if it is served and answers wrongly."""
    if model_type.endswith("_assistant"):
        return Verdict(model_type, UNTRIED, "drafts for another model and needs its cache")
    for seed in range(SEEDS):
        try:
            model = _make(model_type, folder, seed)
        except ImportError as error:
            return Verdict(model_type, UNTRIED, _packages(error))
        except AttributeError as error:
            return Verdict(model_type, UNTRIED, f"transformers cannot build it ({error})")
        try:
            runner = make_runner(folder, block_size=8, device="cpu")
        except StartupError as error:
            return Verdict(model_type, REFUSED, _shorten(str(error)))
        prompts = random_prompts(3, seed=1, longest=40)
        prompts = [prompts[0][:20] + prompt for prompt in prompts]
        expected = {i: greedy(model, p, ANSWER_TOKENS) for i, p in enumerate(prompts)}
        requests = [greedy_request(i, p, ANSWER_TOKENS) for i, p in enumerate(prompts)]
        # Fewer tokens a step than a prompt has, so that chunks and decodes share steps.
        assert answers(runner, requests, max_step_tokens=24) == expected, model_type
        if len({tuple(answer) for answer in expected.values()}) == len(prompts):
            return Verdict(model_type, SERVED, states=_describe_states(runner))
    raise AssertionError(f"{model_type}: the random models answer every prompt alike")


def read_table() -> tuple[str, dict[str, Verdict]]:
    """The version of transformers the table was made with, and its rows."""
    text = TABLE.read_text(encoding="utf-8")
    version = text.split("with transformers ")[1].split(";")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    verdicts = [Verdict(row[0].strip("`"), row[1], row[2], row[3]) for row in rows]
    return version, {verdict.model_type: verdict for verdict in verdicts}


def write_table(verdicts: list[Verdict]) -> str:
    served = sum(verdict.status == SERVED for verdict in verdicts)
    head = _HEAD.format(version=transformers.__version__, served=served, total=len(verdicts))
    rows = (f"| `{v.model_type}` | {v.status} | {v.reason} | {v.states} |\n" for v in verdicts)
    return head + "".join(rows)


def _make(model_type: str, folder: Path, seed: int) -> PreTrainedModel:
    config = small_config(model_type)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, seed=seed, gain=1.5 * (1 + seed))
    # Some types come with a default end of text, which would cut answers short.
    model.generation_config = GenerationConfig(pad_token_id=0)
    model.save_pretrained(folder)
    if type(model.config) is not type(config):
        config.save_pretrained(folder)  # the text model of a composite one: as it is published
    return model


def _shorten(message: str) -> str:
    """Without what every refusal says: the name of the class, and what to do."""
    reason = message.split(" ", 1)[1].removeprefix("cannot be served exactly: ")
    return reason.removesuffix(" Choose another architecture.").rstrip(".")


def _describe_states(runner: ModelRunner) -> str:
    """The kinds of states that a model's layers keep, and how large they are."""
    if runner.states is None:
        return ""
    kinds = sorted({key.kind for key in runner.states.shapes})
    return f"{' and '.join(kinds)}, {bytes_per_slot(runner.states.shapes):,} bytes"


def _packages(error: ImportError) -> str:
    words = str(error).split("requires the ")[1:]
    return "needs " + " and ".join(word.split()[0] for word in words)


def main() -> None:
    verdicts = []
    for model_type in model_types():
        with TemporaryDirectory() as folder:
            verdicts.append(judge(model_type, Path(folder)))
        print(verdicts[-1], file=sys.stderr)
    Path(sys.argv[1]).write_text(write_table(verdicts), encoding="utf-8")


if __name__ == "__main__":
    main()
