"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in ChatGLM's two variants.

Angles are fp32 everywhere, whatever the model's dtype: position 2,049 is no longer a number in
fp16. ChatGLM2 and later turn neighbouring pairs of the first half of each head; ChatGLM-6B turns
both halves, one by the position in the text and one by the position in the answer ("2-D"), and
pairs dimension i with i + a quarter of the head.
"""

import torch

from llm.config import ModelConfig


class RotaryTable:
    """Unit complex numbers exp(i * angle) for each position: (positions, pairs) complex64.

    Grows by doubling when a longer position is asked for.
    """

    def __init__(self, n_pairs: int, *, base: float, scale: float = 1.0) -> None:
        """Keep the constants.

        Args:
            n_pairs: pairs of dimensions that are turned.
            base: of the geometric series of angles.
            scale: positions are divided by it.
        """
        exponents = torch.arange(n_pairs, dtype=torch.float32) / n_pairs
        self._frequencies = 1.0 / (base**exponents)  # (pairs,)
        self._scale = scale
        self._table = self._make(256)

    def rows(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the rows for positions (T,), as (T, pairs)."""
        needed = int(positions.max()) + 1
        if needed > len(self._table):
            self._table = self._make(max(needed, 2 * len(self._table)))
        return self._table[positions]

    def span(self, start: int, end: int) -> torch.Tensor:
        """Return the rows for positions `start` to `end`, as (end - start, pairs)."""
        if end > len(self._table):
            self._table = self._make(max(end, 2 * len(self._table)))
        return self._table[start:end]

    def to(self, device: torch.device | str) -> "RotaryTable":
        self._frequencies = self._frequencies.to(device)
        self._table = self._table.to(device)
        return self

    def _make(self, length: int) -> torch.Tensor:
        positions = torch.arange(length, dtype=torch.float32, device=self._frequencies.device)
        angles = torch.outer(positions / self._scale, self._frequencies)
        return torch.polar(torch.ones_like(angles), angles)


def interleaved_table(config: ModelConfig) -> RotaryTable:
    """Table for ChatGLM2 and later: pairs in the first half of each head."""
    return RotaryTable(config.head_dim // 4, base=config.rope_base, scale=config.rope_scale)


def rotate_pairs(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn (x0, x1), (x2, x3), ... of the first half of each head; the rest passes.

    Args:
        x: (T, heads, D).
        turns: (T, D / 4) complex64.

    Returns:
        (T, heads, D) in x's dtype.
    """
    half = x.shape[-1] // 2
    pairs = torch.view_as_complex(x[..., :half].float().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * turns[:, None]).flatten(-2)  # (T, heads, D / 2)
    return torch.cat((turned.to(x.dtype), x[..., half:]), dim=-1)


def rotate_two_dimensional(
    x: torch.Tensor, turns: torch.Tensor, block_turns: torch.Tensor
) -> torch.Tensor:
    """Turn the first half of each head by `turns` and the second by `block_turns`.

    Inside a half of width w, dimension i is paired with i + w / 2.

    Args:
        x: (T, heads, D).
        turns: (T, D / 4) complex64, by position in the text.
        block_turns: (T, D / 4) complex64, by position in the answer.
    """
    quarters = x.float().unflatten(-1, (2, 2, -1))  # (T, heads, half, real or imaginary, D / 4)
    pairs = torch.complex(quarters[..., 0, :], quarters[..., 1, :])  # (T, heads, 2, D / 4)
    turned = pairs * torch.stack((turns, block_turns), dim=1)[:, None]
    both = torch.stack((turned.real, turned.imag), dim=-2)  # (T, heads, 2, 2, D / 4)
    return both.flatten(-3).to(x.dtype)
