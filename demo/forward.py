"""The training forward pass: the served model's own weights, computed faster than its own code.

It takes a `LlamaForCausalLM`, applies the same operations to the same parameters, and works out
logits only where the model is to learn something. A test holds it against the model itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM


def rotary_tables(model: LlamaForCausalLM, length: int) -> tuple[Tensor, Tensor]:
    config = model.config
    dim: int = config.head_dim or 0
    theta: float = config.to_dict()["rope_parameters"]["rope_theta"]
    rates = theta ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), rates)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def layer_weights(model: LlamaForCausalLM) -> list[list[Tensor]]:
    """Each layer's parameters in the order in which `layer_forward` takes them."""
    return [
        [
            layer.input_layernorm.weight,
            layer.self_attn.q_proj.weight,
            layer.self_attn.k_proj.weight,
            layer.self_attn.v_proj.weight,
            layer.self_attn.o_proj.weight,
            layer.post_attention_layernorm.weight,
            layer.mlp.gate_proj.weight,
            layer.mlp.up_proj.weight,
            layer.mlp.down_proj.weight,
        ]
        for layer in model.model.layers
    ]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos + turned * sin).to(torch.bfloat16)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    return (x * weight).to(torch.bfloat16)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention as plain products: faster to train than SDPA for rows this short."""
    rows, heads, length, dim = queries.shape
    shared = keys.shape[1]
    grouped = queries.reshape(rows * shared, heads // shared * length, dim)
    scores = torch.bmm(grouped, keys.reshape(rows * shared, length, dim).transpose(1, 2))
    scores = scores.view(rows * shared, heads // shared, length, length).float() * dim**-0.5
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).to(torch.bfloat16)
    weights = weights.view(rows * shared, heads // shared * length, length)
    seen = torch.bmm(weights, values.reshape(rows * shared, length, dim))
    return seen.view(rows, heads, length, dim)


def layer_forward(x: Tensor, cos: Tensor, sin: Tensor, weights: list[Tensor]) -> Tensor:
    """One decoder layer: products in bf16, norms and the residual stream in fp32."""
    norm_in, q, k, v, o, norm_mlp, gate, up, down = weights
    rows, length, _ = x.shape
    dim = cos.shape[-1]
    w = torch.cat((q, k, v)).to(torch.bfloat16)
    mixed = F.linear(_norm(x, norm_in), w).view(rows, length, -1, dim).transpose(1, 2)
    heads, shared = q.shape[0] // dim, k.shape[0] // dim
    turned = _rotate(mixed[:, : heads + shared].float(), cos, sin)
    queries, keys, values = turned[:, :heads], turned[:, heads:], mixed[:, heads + shared :]
    seen = _attend(queries, keys, values).transpose(1, 2).reshape(rows, length, -1)
    x = x + F.linear(seen, o.to(torch.bfloat16)).float()
    wide = F.linear(_norm(x, norm_mlp), torch.cat((gate, up)).to(torch.bfloat16))
    opened, passed = wide.chunk(2, dim=-1)
    return x + F.linear(F.silu(opened) * passed, down.to(torch.bfloat16)).float()


def loss(
    model: LlamaForCausalLM, ids: Tensor, learned: Tensor, tables: tuple[Tensor, Tensor]
) -> Tensor:
    """Mean cross-entropy of the tokens that the model is to write."""
    x = model.model.embed_tokens(ids)
    cos, sin = tables[0][: ids.shape[1]], tables[1][: ids.shape[1]]
    for weights in layer_weights(model):
        x = layer_forward(x, cos, sin, weights)
    before = x[:, :-1][learned[:, 1:]]
    hidden = _norm(before, model.model.norm.weight)
    logits = F.linear(hidden, model.lm_head.weight.to(torch.bfloat16)).float()
    return F.cross_entropy(logits, ids[:, 1:][learned[:, 1:]])
