"""Random-weight models and the prompts made for them, on a tiny shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.models import SHAPES, Shape, find_model, make_model
from benchmarks.tokenizer import build_tokenizer, silent_ids, word_order
from benchmarks.workloads import WORKLOADS, alter, plan

CONTEXT = 2048


def tiny(family: Literal["llama", "qwen3"], vocab: int = 2000) -> Shape:
    return Shape(
        family=family,
        hidden=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        intermediate=64,
        vocab=vocab,
        context=CONTEXT,
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(4000, max_length=CONTEXT)


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer.encode(rendered, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_loads_and_answers_in_words(
    family: Literal["llama", "qwen3"], tmp_path: Path
) -> None:
    folder = make_model(tiny(family), tmp_path / "model")
    automatic: Any = AutoModelForCausalLM
    model = automatic.from_pretrained(folder, dtype="auto")
    own: Any = AutoTokenizer
    tokenizer = own.from_pretrained(folder)
    assert (model.config.model_type, model.dtype) == (family, torch.bfloat16)
    assert model.config.tie_word_embeddings
    assert (len(tokenizer), model.config.vocab_size) == (2000, 2000)
    assert model.generation_config.eos_token_id is None
    assert tokenizer.eos_token_id is None
    ids = prompt_ids(tokenizer, "Count to ten, please")
    answer = model.generate(torch.tensor([ids]), max_new_tokens=20)[0, len(ids) :].tolist()
    assert len(answer) == 20
    assert not set(answer) & set(silent_ids(tokenizer))
    assert all(tokenizer.decode([token]).strip().isalpha() for token in answer)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_that_quotes_repeats_a_text_of_its_prompt_with_words_put_right(
    family: Literal["llama", "qwen3"], tmp_path: Path
) -> None:
    # Two layers of a tiny width drown less than those of a real shape, which is four times as wide.
    shape = replace(tiny(family), hidden=128, head_dim=32, quotes=True)
    folder = make_model(shape, tmp_path / "model")
    automatic: Any = AutoModelForCausalLM
    model = automatic.from_pretrained(folder, dtype="auto")
    own: Any = AutoTokenizer
    tokenizer = own.from_pretrained(folder)
    workload = replace(WORKLOADS["edit1"], conversations=2)
    order = [word.replace("\u0120", " ") for word in word_order(tokenizer.get_vocab())]
    for conversation in plan(workload, tokenizer, seed="0"):
        text = conversation.turns[0]
        ids = prompt_ids(tokenizer, text)
        assert len(ids) == workload.prompt[0]
        answer = model.generate(torch.tensor([ids]), max_new_tokens=128)[0, len(ids) :]
        assert tokenizer.decode(answer) == "".join(order[:128])
        quoted = text.split(" ")[1:129]
        num_same = sum(f" {word}" == said for word, said in zip(quoted, order, strict=False))
        assert 100 < num_same < 128


def test_a_model_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = make_model(tiny("llama"), tmp_path / "model")
    weights = folder / "model.safetensors"
    before, content = weights.stat().st_mtime_ns, weights.read_bytes()
    make_model(tiny("llama"), folder)
    assert weights.stat().st_mtime_ns == before
    assert make_model(tiny("llama"), tmp_path / "again").joinpath(weights.name).read_bytes() == (
        content
    )
    assert make_model(tiny("qwen3"), folder).joinpath(weights.name).read_bytes() != content


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="something else"):
        make_model(tiny("llama"), tmp_path)
    with pytest.raises(ValueError, match="neither"):
        find_model(str(tmp_path))


def test_the_full_vocabulary_is_exact_and_decodes() -> None:
    tokenizer: Any = build_tokenizer(SHAPES["bench-135m"].vocab, max_length=8192)
    assert len(tokenizer) == 32_000
    silent = set(silent_ids(tokenizer))
    words = [tokenizer.decode([token]) for token in range(32_000) if token not in silent]
    assert len(set(words)) == len(words) > 31_000
    assert all(word[0] == " " and word[1:].isalpha() for word in words)
    assert all(len(tokenizer.encode(word)) == 1 for word in words[::97])


@pytest.mark.parametrize("vocab", [100, 400, 2_000_000])
def test_a_vocabulary_that_cannot_be_is_refused(vocab: int) -> None:
    with pytest.raises(ValueError, match="cannot be made"):
        build_tokenizer(vocab, max_length=CONTEXT)


@pytest.mark.parametrize("name", WORKLOADS)
def test_prompts_have_exactly_the_tokens_asked_for(name: str, tokenizer: Any) -> None:
    workload = WORKLOADS[name]
    conversations = plan(workload, tokenizer, seed="1")
    lengths = [len(prompt_ids(tokenizer, each.turns[0])) for each in conversations]
    assert len(lengths) == workload.conversations
    assert set(lengths) == set(workload.prompt)
    added = [len(tokenizer.encode(text)) for each in conversations for text in each.turns[1:]]
    assert added == [workload.added] * (workload.conversations * (workload.turns - 1))


def test_a_plan_follows_from_its_seed(tokenizer: Any) -> None:
    one, other = (plan(WORKLOADS["churn"], tokenizer, seed=seed) for seed in ("1", "2"))
    assert one == plan(WORKLOADS["churn"], tokenizer, seed="1")
    assert [each.turns for each in one] != [each.turns for each in other]
    assert [each.arrival for each in one] == [each.arrival for each in other]
    assert [each.cancel_after for each in one] == [each.cancel_after for each in other]


def test_churn_cancels_a_third_and_arrives_over_time(tokenizer: Any) -> None:
    conversations = plan(WORKLOADS["churn"], tokenizer, seed="1")
    cut = [each for each in conversations if each.cancel_after is not None]
    assert len(cut) == len(conversations) // 3
    assert all(0 < (each.cancel_after or 0) < each.max_tokens for each in cut)
    arrivals = [each.arrival for each in conversations]
    assert arrivals == sorted(arrivals)
    assert 10 < arrivals[-1] < 50


def test_prefix_prompts_share_exactly_what_they_should(tokenizer: Any) -> None:
    conversations = plan(WORKLOADS["prefix"], tokenizer, seed="1")
    prompts = [prompt_ids(tokenizer, each.turns[0]) for each in conversations]
    columns = zip(*prompts, strict=True)
    shared = next(index for index, column in enumerate(columns) if len(set(column)) > 1)
    assert shared == 512
    assert len({prompt[512] for prompt in prompts}) == len(prompts)


def test_an_altered_workload_keeps_the_rest(tokenizer: Any) -> None:
    altered = alter(WORKLOADS["prefix"], conversations=3, prompt=100, answer=4)
    conversations = plan(altered, tokenizer, seed="1")
    assert [len(prompt_ids(tokenizer, each.turns[0])) for each in conversations] == [100] * 3
    assert {each.max_tokens for each in conversations} == {4}


def test_a_prompt_shorter_than_the_template_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="exactly 3 tokens"):
        plan(alter(WORKLOADS["c1"], conversations=1, prompt=3, answer=1), tokenizer, seed="1")
