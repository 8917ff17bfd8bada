"""ChatGLM-6B: prefix-bidirectional attention, 2-D rotary positions, scaled residuals.

A GLM (Du et al. 2022, arXiv:2103.10360): all tokens before <sop> see each other, so every
hidden state depends on the whole prompt. The prompt therefore goes through in one piece and no
part of it can be reused. Blocks add the *normalised* input times sqrt(2 * 28) to their output
(DeepNorm, Wang et al. 2022, arXiv:2203.00555, in the form of the published code).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from llm.config import ModelConfig
from llm.kv_cache import KVCache
from llm.linear import Linear
from llm.model import Cancelled, Decoder, Embedding, causal_mask, never
from llm.rotary import RotaryTable, rotate_two_dimensional

# The published code never passes the number of layers on, so 28 holds for every size.
_RESIDUAL_SCALE = math.sqrt(2 * 28)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: torch.Tensor  # (hidden,) fp32
    bias: torch.Tensor  # (hidden,) fp32

    def __call__(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        """Normalise (T, hidden) fp32."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps)


@dataclass(frozen=True, slots=True)
class BlockV1:
    """The weights of one layer."""

    attention_norm: LayerNorm
    qkv: Linear  # hidden -> H * 3 * D: q, k, v of the first head, then of the next
    attention_out: Linear
    ffn_norm: LayerNorm
    ffn_in: Linear  # hidden -> ffn
    ffn_out: Linear


class PrefixModel(Decoder):
    """Implements `llm.model.Model` for ChatGLM-6B."""

    blocks: tuple[BlockV1, ...]

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding: Embedding,
        blocks: Sequence[BlockV1],
        final_norm: LayerNorm,
        head: Linear,
        dtype: torch.dtype,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.device = final_norm.weight.device
        self.embedding = embedding
        self.blocks = tuple(blocks)
        self.final_norm = final_norm
        self.head = head
        self._rotary = RotaryTable(config.head_dim // 4, base=config.rope_base).to(self.device)

    @torch.inference_mode()
    def forward(
        self,
        ids: torch.Tensor,
        cache: KVCache,
        context_length: int | None = None,
        *,
        is_cancelled: Callable[[], bool] = never,
    ) -> torch.Tensor:
        """Run the whole prompt into an empty cache, or new tokens after it.

        Args:
            ids: (T,) integers; a prompt ends with [gMASK] and <sop>.
            cache: it advances by T.
            context_length: tokens before <sop>; default is all of the prompt but the last.
                Only read when the cache is empty.
            is_cancelled: asked before each layer.

        Returns:
            (T, hidden) after the last norm.
        """
        if cache.length == 0:
            cache.context_length = len(ids) - 1 if context_length is None else context_length
        x = self.through_blocks(self.embedding(ids).float(), cache, is_cancelled)
        return self.final_norm(x, self.config.norm_eps).to(self.dtype)

    @torch.inference_mode()
    def through_blocks(
        self, x: torch.Tensor, cache: KVCache, is_cancelled: Callable[[], bool] = never
    ) -> torch.Tensor:
        """Run embedded tokens (T, hidden) fp32 through the layers; the cache advances by T.

        `cache.context_length` must have been set.
        """
        n_tokens, context = len(x), cache.context_length
        index = torch.arange(cache.length, cache.length + n_tokens, device=self.device)
        # from <sop> on, the position in the text stays that of [gMASK] and the other one counts
        turns = self._rotary.rows(index.clamp(max=max(context - 1, 0)))  # (T, D / 4)
        block_turns = self._rotary.rows((index - context + 1).clamp(min=0))
        eps = self.config.norm_eps
        for layer, block in enumerate(self.blocks):
            if is_cancelled():
                raise Cancelled
            x = block.attention_norm(x, eps)
            attended = self._attend(block, x.to(self.dtype), layer, cache, turns, block_turns)
            x = block.ffn_norm(x * _RESIDUAL_SCALE + attended, eps)
            hidden = F.gelu(block.ffn_in(x.to(self.dtype)), approximate="tanh")  # (T, ffn)
            x = x * _RESIDUAL_SCALE + block.ffn_out(hidden)
        cache.advance(n_tokens)
        return x

    def _attend(
        self,
        block: BlockV1,
        x: torch.Tensor,
        layer: int,
        cache: KVCache,
        turns: torch.Tensor,
        block_turns: torch.Tensor,
    ) -> torch.Tensor:
        heads, n_tokens = self.config.n_heads, len(x)
        qkv = block.qkv(x).view(n_tokens, heads, 3, -1)  # (T, H, 3, D)
        queries = rotate_two_dimensional(qkv[:, :, 0], turns, block_turns)
        keys = rotate_two_dimensional(qkv[:, :, 1], turns, block_turns)
        keys, values = cache.write(layer, keys, qkv[:, :, 2])  # (H, S, D)
        queries = queries.transpose(0, 1)  # (H, T, D)
        n_prefix = max(cache.context_length - cache.length, 0)
        parts = []
        if n_prefix:
            seen = cache.length + n_prefix
            parts.append(_attention(queries[:, :n_prefix], keys[:, :seen], values[:, :seen]))
        if n_prefix < n_tokens:
            mask = causal_mask(n_tokens - n_prefix, keys.shape[1], self.device)
            parts.append(_attention(queries[:, n_prefix:], keys, values, mask))
        out = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]  # (H, T, D)
        return block.attention_out(out.transpose(0, 1).reshape(n_tokens, -1))


def _attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend (H, T, D) over (H, S, D); mask (T, S) True where a query may look, None everywhere."""
    return F.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=mask)[
        0
    ]
