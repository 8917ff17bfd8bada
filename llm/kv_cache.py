"""Keys and values of one sequence: allocated once, written in place, sized before admission.

Multi-query attention (Shazeer 2019, arXiv:1911.02150; in groups: Ainslie et al. 2023,
arXiv:2305.13245) keeps one key and value head per group of query heads, so ChatGLM2 and 3 need
28 KB per token in fp16 where ChatGLM-6B needs 448 KB.
"""

from typing import Literal

import torch

from llm.config import ModelConfig

KVForm = Literal["model", "int8"]


class KVCache:
    """Room for `max_tokens` positions of every layer.

    Stored per layer as (K, max_tokens, D), K key-value heads of size D, in the model's dtype or
    as int8 codes with one fp16 scale per head and position. `length` positions are filled.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_tokens: int,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        form: KVForm = "model",
    ) -> None:
        self.max_tokens = max_tokens
        self.length = 0
        self.context_length = 0  # ChatGLM-6B: tokens of the prompt before <sop>
        self._dtype = dtype
        self._is_int8 = form == "int8"
        # keys at [:, 0], values at [:, 1]
        shape = (config.n_layers, 2, config.n_kv_heads, max_tokens, config.head_dim)
        stored = torch.int8 if self._is_int8 else dtype
        self._store = torch.empty(shape, dtype=stored, device=device)
        self._scales = (
            torch.empty((*shape[:-1], 1), dtype=torch.float16, device=device)
            if self._is_int8
            else None
        )

    @property
    def size_bytes(self) -> int:
        scales = self._scales.nbytes if self._scales is not None else 0
        return self._store.nbytes + scales

    def reset(self) -> None:
        """Forget everything, keep the memory."""
        self.length = 0
        self.context_length = 0

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new positions of one layer and return all of them, old and new.

        `length` stays as it is until `advance`, after the last layer.

        Args:
            layer: which layer.
            keys: (T, K, D), rotated.
            values: (T, K, D).

        Returns:
            keys and values, each (K, length + T, D) in the model's dtype; views of the store
            unless it is int8.
        """
        start, end = self.length, self.length + keys.shape[0]
        new = torch.stack((keys.transpose(0, 1), values.transpose(0, 1)))  # (2, K, T, D)
        if self._scales is None:
            self._store[layer, :, :, start:end] = new
            both = self._store[layer, :, :, :end]
            return both[0], both[1]
        scales = (new.abs().amax(-1, keepdim=True).float() / 127).clamp_min(1e-6)
        codes = (new.float() / scales.half().float()).round_().clamp_(-127, 127)
        self._scales[layer, :, :, start:end] = scales.half()
        self._store[layer, :, :, start:end] = codes.to(torch.int8)
        both = (self._store[layer, :, :, :end] * self._scales[layer, :, :, :end]).to(self._dtype)
        return both[0], both[1]

    def advance(self, n_tokens: int) -> None:
        """Count positions written to every layer."""
        self.length += n_tokens


def kv_bytes(
    config: ModelConfig, n_tokens: int, *, form: KVForm = "model", value_bytes: int = 2
) -> int:
    """Return what `KVCache` will take for `n_tokens`, without allocating it.

    Args:
        config: the model's shape.
        n_tokens: prompt and completion together.
        form: as for `KVCache`.
        value_bytes: bytes of one value of the model's dtype; ignored for int8.
    """
    values = config.n_layers * 2 * config.n_kv_heads * n_tokens
    per_position = config.head_dim + 2 if form == "int8" else config.head_dim * value_bytes
    return values * per_position
