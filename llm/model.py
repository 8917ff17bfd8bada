"""ChatGLM2, ChatGLM3 and GLM-4: one decoder with multi-query attention.

Pre-norm blocks of RMSNorm, grouped attention with partial interleaved rotary positions, and a
SwiGLU MLP. The residual stream is fp32 whatever the dtype of the products, which costs nothing
beside the weights. One sequence at a time, without a batch dimension: T new tokens, S tokens so
far. Shapes: H query heads, K key-value heads, D head size, V vocabulary.

`llm.model_v1` holds ChatGLM-6B, which shares none of this but the interface: `forward` and
`logits`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from llm.config import ModelConfig
from llm.kv_cache import KVCache
from llm.linear import Linear
from llm.rotary import interleaved_table, rotate_pairs


class Cancelled(Exception):
    """Raised out of a forward pass, between two layers, once nobody wants its result."""


def never() -> bool:
    return False


class Model(Protocol):
    """What the engine needs of a model."""

    config: ModelConfig
    dtype: torch.dtype
    device: torch.device

    def forward(
        self, ids: torch.Tensor, cache: KVCache, *, is_cancelled: Callable[[], bool] = never
    ) -> torch.Tensor:
        """Run new tokens after those in the cache; return hidden states (T, hidden).

        Raises:
            Cancelled: `is_cancelled`, asked before each layer, said so; the cache holds parts.
        """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (T, V) fp32 for hidden states (T, hidden)."""

    @property
    def weight_bytes_per_token(self) -> int:
        """Bytes of weights that decoding one token reads."""


class Embedding:
    """Rows of a (V, hidden) table, float or int8 with one scale per row."""

    def __init__(
        self, table: torch.Tensor, dtype: torch.dtype, scales: torch.Tensor | None = None
    ) -> None:
        self._table, self._dtype, self._scales = table, dtype, scales

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self._table[ids]  # (T, hidden)
        if self._scales is None:
            return rows.to(self._dtype)
        return (rows.float() * self._scales[ids].float()[:, None]).to(self._dtype)


@dataclass(frozen=True, slots=True)
class Block:
    """The weights of one layer."""

    attention_norm: torch.Tensor  # (hidden,)
    qkv: Linear  # hidden -> (H + 2K) * D, rows q | k | v
    attention_out: Linear  # H * D -> hidden
    ffn_norm: torch.Tensor  # (hidden,)
    ffn_in: Linear  # hidden -> 2 * ffn, rows gate | up
    ffn_out: Linear  # ffn -> hidden


class HasLinears(Protocol):
    """A block of either family."""

    @property
    def qkv(self) -> Linear: ...
    @property
    def attention_out(self) -> Linear: ...
    @property
    def ffn_in(self) -> Linear: ...
    @property
    def ffn_out(self) -> Linear: ...


class Decoder:
    """What both families share: blocks of four linear layers, and a head."""

    blocks: Sequence[HasLinears]
    head: Linear

    @property
    def weight_bytes_per_token(self) -> int:
        """Bytes of weights that decoding one token reads."""
        per_block = (
            linear.size_bytes
            for block in self.blocks
            for linear in (block.qkv, block.attention_out, block.ffn_in, block.ffn_out)
        )
        return sum(per_block) + self.head.size_bytes

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (T, V) fp32 for hidden states (T, hidden)."""
        return self.head(hidden).float()


class MultiQueryModel(Decoder):
    """Implements `Model`."""

    blocks: tuple[Block, ...]

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding: Embedding,
        blocks: Sequence[Block],
        final_norm: torch.Tensor,
        head: Linear,
    ) -> None:
        self.config = config
        self.dtype = final_norm.dtype
        self.device = final_norm.device
        self.embedding = embedding
        self.blocks = tuple(blocks)
        self.final_norm = final_norm
        self.head = head
        self._rotary = interleaved_table(config).to(self.device)

    @torch.inference_mode()
    def forward(
        self, ids: torch.Tensor, cache: KVCache, *, is_cancelled: Callable[[], bool] = never
    ) -> torch.Tensor:
        """Run new tokens after those in the cache.

        Args:
            ids: (T,) integers.
            cache: with room for T more; it advances by T.
            is_cancelled: asked before each layer.

        Returns:
            (T, hidden) after the last norm.
        """
        x = self.through_blocks(self.embedding(ids).float(), cache, is_cancelled)
        return self._norm(x, self.final_norm)

    @torch.inference_mode()
    def through_blocks(
        self, x: torch.Tensor, cache: KVCache, is_cancelled: Callable[[], bool] = never
    ) -> torch.Tensor:
        """Run embedded tokens (T, hidden) fp32 through the layers; the cache advances by T."""
        n_tokens, end = len(x), cache.length + len(x)
        turns = self._rotary.span(cache.length, end)  # (T, D / 4)
        # without earlier tokens the mask is a plain triangle, which SDPA need not be handed
        mask = causal_mask(n_tokens, end, self.device) if cache.length else None
        for layer, block in enumerate(self.blocks):
            if is_cancelled():
                raise Cancelled
            normed = self._norm(x, block.attention_norm)
            x = x + self._attend(block, normed, layer, cache, turns, mask)
            gate, up = block.ffn_in(self._norm(x, block.ffn_norm)).chunk(2, dim=-1)  # (T, ffn)
            x = x + block.ffn_out(F.silu(gate) * up)
        cache.advance(n_tokens)
        return x

    def _attend(
        self,
        block: Block,
        x: torch.Tensor,
        layer: int,
        cache: KVCache,
        turns: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        config = self.config
        heads, groups = config.n_heads, config.n_kv_heads
        qkv = block.qkv(x).view(len(x), heads + 2 * groups, config.head_dim)
        turned = rotate_pairs(qkv[:, : heads + groups], turns)  # (T, H + K, D)
        keys, values = cache.write(layer, turned[:, heads:], qkv[:, heads + groups :])
        queries = turned[:, :heads]  # (T, H, D)
        if len(x) == 1:
            # the heads of a group share its keys: they become rows of one product
            queries = queries.view(1, groups, heads // groups, -1)  # (1, K, H / K, D)
            out = F.scaled_dot_product_attention(queries, keys[None], values[None])
            return block.attention_out(out.view(1, -1))
        out = grouped_attention(queries, keys, values, mask)  # (T, H, D)
        return block.attention_out(out.reshape(len(x), -1))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight, self.config.norm_eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Scale rows to unit root mean square, in fp32 (Zhang and Sennrich 2019, arXiv:1910.07467).

    Args:
        x: (T, hidden).
        weight: (hidden,).
        eps: added to the mean square.

    Returns:
        (T, hidden) in the dtype of `weight`.
    """
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(weight.dtype)


def grouped_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attend causally with K key-value heads shared by H query heads, none of them copied.

    Args:
        queries: (T, H, D); head h uses group h // (H / K).
        keys: (K, S, D).
        values: (K, S, D).
        mask: (T, S), True where a query may look; None where T = S.

    Returns:
        (T, H, D)
    """
    n_tokens, heads, head_dim = queries.shape
    groups, length, _ = keys.shape
    shape = (groups, heads // groups, length, head_dim)
    out = F.scaled_dot_product_attention(
        queries.view(n_tokens, groups, -1, head_dim).permute(1, 2, 0, 3),  # (K, H / K, T, D)
        keys[:, None].expand(shape),
        values[:, None].expand(shape),
        attn_mask=mask,
        is_causal=mask is None,
    )
    return out.permute(2, 0, 1, 3).reshape(n_tokens, heads, head_dim)


def causal_mask(n_tokens: int, length: int, device: torch.device) -> torch.Tensor | None:
    """Return (T, S): the last T of S tokens each see what came before and themselves."""
    if n_tokens == 1:
        return None
    mask = torch.ones(n_tokens, length, dtype=torch.bool, device=device)
    return mask.tril_(length - n_tokens)
