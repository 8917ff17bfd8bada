"""Int4 weights in the layout of our own kernels, and products with them.

A tile is 32 rows of the matrix (columns of the result) with all their groups, one after the other,
so that a product reads memory in one line:

    group:  32 * g / 2 bytes of codes | 32 scales bf16 | 32 zeros bf16, unless all are 0
    codes:  for each 8 positions of the input two vectors of 64 bytes, for 16 columns each
    vector: 16 words of 32 bits, one per column
    word:   two halves of 16 bits: even positions, odd positions
    half:   four codes of 4 bits: positions 0 to 3 of their kind, the first in the low bits

A word shifted by four bits has the next pair of positions in the low bits of its halves, which is
how both `vdpbf16ps` and AMX want pairs.
"""

import functools
import logging
from dataclasses import dataclass

import torch

from llm.kernels import (
    AMX_BYTES,
    BLOCK_TILES,
    PANEL_BYTES,
    PANEL_UNITS,
    PRODUCT_ROWS,
    TILE_COLUMNS,
    UNIT,
    bytes_per_group,
)
from llm.native import Kernels, compiled, has_amx, obstacle, run
from llm.quantize import Int4Weight, dequantize, quantize_int4, unpack_nibbles

logger = logging.getLogger(__name__)

_GROUP_SIZES = (128, 64, 32)
# Rows of input up to which products of a few rows each beat expanding the weights.
_FEW_ROWS = 8
# Columns expanded at once where there is no AMX: narrow, since each thread writes down a column.
_EXPANDED_TILES = 32


@dataclass(frozen=True, slots=True)
class TiledInt4:
    """octets: (N / 32, K / g, bytes of a group) uint8; the last tells g and whether zeros are."""

    octets: torch.Tensor

    @property
    def n_rows(self) -> int:
        return TILE_COLUMNS * self.octets.shape[0]

    @property
    def n_columns(self) -> int:
        return self.octets.shape[1] * self.group_size

    @property
    def has_zeros(self) -> bool:
        return self.octets.shape[2] % 128 == 0

    @property
    def group_size(self) -> int:
        n_bytes = self.octets.shape[2] - bytes_per_group(0, self.has_zeros)
        return 2 * n_bytes // TILE_COLUMNS


def can_tile(weight: Int4Weight) -> bool:
    """Say whether our kernels take a matrix here."""
    group = _group(weight)
    if group is None or weight.shape[0] % TILE_COLUMNS:
        return False
    return are_proved(group, has_zeros=_has_zeros(weight))


def tile(weight: Int4Weight) -> TiledInt4:
    """Lay a matrix out in tiles.

    A scale per row (published checkpoints) is repeated for the largest groups there are; scales
    are rounded to bf16, which changes fp16 ones by at most 2**-9 of themselves.

    Raises:
        ValueError: its rows or groups do not fit.
    """
    group = _group(weight)
    n_rows, n_columns = weight.shape
    if group is None or n_rows % TILE_COLUMNS:
        raise ValueError(f"a matrix of {weight.shape} cannot be cut into tiles")
    n_tiles, n_groups = n_rows // TILE_COLUMNS, n_columns // group
    # tile, half, column, group, step, pair, parity
    codes = unpack_nibbles(weight.codes).view(n_tiles, 2, 16, n_groups, group // 8, 4, 2)
    low, high = codes[..., 0::2, :], codes[..., 1::2, :]
    # tile, half, column, group, step, byte of the half word, parity
    octets = low | (high << 4)
    octets = octets.permute(0, 3, 4, 1, 2, 6, 5).reshape(n_tiles, n_groups, -1)
    parts = [octets]
    for values in (weight.scales, weight.zeros if _has_zeros(weight) else None):
        if values is not None:
            repeated = values.to(torch.bfloat16).repeat_interleave(weight.group_size // group, 1)
            by_tile = repeated.view(n_tiles, TILE_COLUMNS, n_groups).transpose(1, 2)
            parts.append(by_tile.contiguous().view(torch.uint8))
    return TiledInt4(torch.cat(parts, dim=-1))


def multiply(x: torch.Tensor, weight: TiledInt4) -> torch.Tensor:
    """Return x (M, K) bf16 times the transposed matrix, (M, N) bf16, summed in fp32."""
    return _multiply(x, weight, compiled(weight.group_size, weight.has_zeros, has_amx()))


@functools.cache
def are_proved(group_size: int = 32, *, has_zeros: bool = True) -> bool:
    """Prove on a small matrix that the kernels compute here what they should.

    Once for each form of weights; half a second.
    """
    if obstacle() is not None:
        return False
    try:
        kernels = compiled(group_size, has_zeros, has_amx())
    except RuntimeError as exc:
        logger.warning("int4 kernels cannot be compiled, torch's are used instead: %s", exc)
        return False
    generator = torch.Generator().manual_seed(1)
    # more than a block of tiles and than a panel, and neither whole
    weight = quantize_int4(torch.randn(160, 640, generator=generator), group_size)
    if not has_zeros:
        weight = Int4Weight(weight.codes, weight.scales, None)
    tiled, matrix = tile(weight), dequantize(weight)
    for n_rows in (*PRODUCT_ROWS, 40):
        x = torch.randn(n_rows, 640, generator=generator).to(torch.bfloat16)
        expected = x.float() @ matrix.T
        found = _multiply(x, tiled, kernels).float()
        # rounding the result to bf16, and for many rows the matrix too, is within 2**-8 each
        if not (found - expected).norm() < 2**-8 * expected.norm():
            logger.warning("int4 kernels compute wrong results here, torch's are used instead")
            return False
    return True


def _multiply(x: torch.Tensor, weight: TiledInt4, kernels: Kernels) -> torch.Tensor:
    x = x.contiguous()
    if len(x) > _FEW_ROWS:
        return (_by_amx if kernels.has_amx else _by_expanding)(x, weight, kernels)
    most = max(PRODUCT_ROWS)
    if len(x) <= most:
        return _few_rows(x, weight, kernels)
    return torch.cat([_few_rows(part, weight, kernels) for part in x.split(most)])


def _few_rows(x: torch.Tensor, weight: TiledInt4, kernels: Kernels) -> torch.Tensor:
    n_tiles, n_groups, _ = weight.octets.shape
    out = x.new_empty(len(x), weight.n_rows)
    run(
        kernels,
        f"product_{len(x)}",
        n_tiles=n_tiles,
        codes=weight.octets.data_ptr(),
        n_groups=n_groups,
        x=x.data_ptr(),
        x_stride=2 * x.shape[1],
        out=out.data_ptr(),
        out_stride=2 * weight.n_rows,
    )
    return out


def _by_amx(x: torch.Tensor, weight: TiledInt4, kernels: Kernels) -> torch.Tensor:
    n_tiles, n_groups, _ = weight.octets.shape
    n_pairs = -(-len(x) // 32)
    arranged = _arranged(x, 2 * n_pairs)
    out = x.new_empty(32 * n_pairs, weight.n_rows)
    scratch_stride = PANEL_BYTES + BLOCK_TILES * n_pairs * 4 * AMX_BYTES
    scratch = torch.empty(torch.get_num_threads(), scratch_stride, dtype=torch.uint8)
    run(
        kernels,
        "multiply",
        n_tiles=n_tiles,
        codes=weight.octets.data_ptr(),
        n_groups=n_groups,
        x=arranged.data_ptr(),
        n_pairs=n_pairs,
        out=out.data_ptr(),
        out_stride=2 * weight.n_rows,
        scratch=scratch.data_ptr(),
        scratch_stride=scratch_stride,
    )
    return out[: len(x)]


def _arranged(x: torch.Tensor, n_tiles: int) -> torch.Tensor:
    """Cut the input into AMX tiles, 16 rows by 32 positions; the last are filled up with zeros.

    Panel after panel; in a panel 16 rows after the other, and in those tile after tile.
    """
    if missing := 16 * n_tiles - len(x):
        x = torch.nn.functional.pad(x, (0, 0, 0, missing))
    tiles = x.view(n_tiles, 16, -1, UNIT).transpose(1, 2)  # (rows / 16, K / 32, 16, 32)
    arranged = x.new_empty(x.numel())
    done = 0
    for panel in tiles.split(PANEL_UNITS, dim=1):
        arranged[done : done + panel.numel()].view(panel.shape).copy_(panel)
        done += panel.numel()
    return arranged


def _by_expanding(x: torch.Tensor, weight: TiledInt4, kernels: Kernels) -> torch.Tensor:
    out = x.new_empty(len(x), weight.n_rows)
    space = x.new_empty(weight.n_columns * _EXPANDED_TILES * TILE_COLUMNS)
    for first, octets in enumerate(weight.octets.split(_EXPANDED_TILES)):
        n_tiles, n_groups, _ = octets.shape
        n = n_tiles * TILE_COLUMNS
        matrix = space[: weight.n_columns * n].view(weight.n_columns, n)
        run(
            kernels,
            "expand",
            n_tiles=n_tiles,
            codes=octets.data_ptr(),
            n_groups=n_groups,
            out=matrix.data_ptr(),
            out_stride=2 * n,
        )
        start = first * _EXPANDED_TILES * TILE_COLUMNS
        torch.mm(x, matrix, out=out[:, start : start + n])
    return out


def _group(weight: Int4Weight) -> int | None:
    """Return the largest group size of ours that divides the matrix's."""
    for group in _GROUP_SIZES:
        if weight.group_size % group == 0:
            return group
    return None


def _has_zeros(weight: Int4Weight) -> bool:
    return weight.zeros is not None and bool(weight.zeros.any())
