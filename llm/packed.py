"""Int4 weights as torch's CPU kernel wants them, and back; and which layout this machine uses.

`llm.tiles` has a layout and kernels of our own, which are faster where they work; this one is for
every other CPU.

``aten._convert_weight_to_int4pack_for_cpu`` lays codes out for the vector width of the machine:
blocks of `block_rows` output rows, within a block one column after the other, the first half of
the rows in the low halves of the bytes and the second half in the high halves; the rows that do
not fill a block come last, two neighbours to a byte. `block_rows` is 64 with AVX512 and 32 with
AVX2, so files of one kind of machine are wrong on the other. `find_block_rows` finds it out by
packing a known matrix, and `verify_layout` proves that `expanded` undoes it here.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from llm.native import has_amx, obstacle
from llm.quantize import Int4Weight, dequantize, quantize_int4, unpack_nibbles
from llm.tiles import are_proved

Layout = Literal["tiles", "torch"]

# Group sizes that the kernel takes.
KERNEL_GROUP_SIZES = (256, 128, 64, 32)
_ROW_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """codes: (N, K / 2) uint8, torch's layout; scales_zeros: (K / g, N, 2) bf16."""

    codes: torch.Tensor
    scales_zeros: torch.Tensor
    block_rows: int

    @property
    def n_rows(self) -> int:
        return self.codes.shape[0]

    @property
    def group_size(self) -> int:
        return 2 * self.codes.shape[1] // self.scales_zeros.shape[0]


def can_pack(shape: tuple[int, int], group_size: int) -> bool:
    """Say whether the kernel takes a matrix (N, K) with this group size (K: one per row)."""
    n_rows, n_columns = shape
    return n_rows % _ROW_MULTIPLE == 0 and _kernel_group(n_columns, group_size) is not None


def pack(weight: Int4Weight) -> PackedInt4:
    """Lay a matrix out for the kernel of this machine.

    A scale per row (published checkpoints) is repeated for the largest groups the kernel takes;
    scales are rounded to bf16, which changes fp16 ones by at most 2**-9 of themselves.

    Raises:
        ValueError: `can_pack` says no.
    """
    group = _kernel_group(weight.shape[1], weight.group_size)
    if group is None or weight.shape[0] % _ROW_MULTIPLE:
        raise ValueError(f"torch's int4 kernel does not take a matrix of {weight.shape}")
    codes = unpack_nibbles(weight.codes).to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    repeats = weight.group_size // group
    scales = weight.scales.to(torch.bfloat16).repeat_interleave(repeats, dim=1)  # (N, K / g)
    zeros = torch.zeros_like(scales)
    if weight.zeros is not None:
        zeros = weight.zeros.to(torch.bfloat16).repeat_interleave(repeats, dim=1)
    scales_zeros = torch.stack((scales, zeros), dim=-1).transpose(0, 1).contiguous()
    return PackedInt4(packed, scales_zeros, find_block_rows())


def expanded(weight: PackedInt4, n_rows: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the matrix in blocks of `n_rows` rows, transposed, with the rows they are.

    The values are those that the kernel multiplies with, rounded to bf16.

    Args:
        weight: packed.
        n_rows: a multiple of `block_rows`.

    Yields:
        rows, and (K, rows) bf16; the next step overwrites it.
    """
    n_columns = 2 * weight.codes.shape[1]
    signed = torch.empty(n_columns, n_rows, dtype=torch.int8)
    values = torch.empty(n_columns * n_rows, dtype=torch.bfloat16)
    for first in range(0, weight.n_rows, n_rows):
        rows = slice(first, min(first + n_rows, weight.n_rows))
        n = rows.stop - first
        codes = signed[:, :n]
        _unpack(weight, rows, codes)
        matrix = values[: n_columns * n].view(n_columns, n)
        matrix.copy_(codes)
        groups = matrix.view(-1, weight.group_size, n)  # (K / g, g, n)
        scales = weight.scales_zeros[:, rows, 0].contiguous()[:, None]  # (K / g, 1, n)
        zeros = weight.scales_zeros[:, rows, 1].contiguous()[:, None]
        torch.addcmul(zeros, groups, scales, out=groups)
        yield rows, matrix


def _unpack(weight: PackedInt4, rows: slice, out: torch.Tensor) -> None:
    """Write codes minus 8 of some rows into `out`, (K, rows) int8."""
    n_columns, n = out.shape
    half = weight.block_rows // 2
    n_blocks = n // weight.block_rows
    n_full = n_blocks * weight.block_rows
    # flipping the top bit of a code makes it code - 8 in two's complement of four bits, which an
    # arithmetic shift widens
    octets = weight.codes.view(-1)[rows.start * n_columns // 2 : rows.stop * n_columns // 2] ^ 0x88
    high = octets.view(torch.int8) >> 4
    low = octets.bitwise_left_shift_(4).view(torch.int8).bitwise_right_shift_(4)
    n_octets = n_full * n_columns // 2
    if n_blocks:
        full = out[:, :n_full].unflatten(1, (n_blocks, 2, half))
        shape = (n_blocks, n_columns, half)
        full[:, :, 0] = low[:n_octets].view(shape).transpose(0, 1)
        full[:, :, 1] = high[:n_octets].view(shape).transpose(0, 1)
    if n_full < n:
        out[:, n_full::2] = low[n_octets:].view(n_columns, -1)
        out[:, n_full + 1 :: 2] = high[n_octets:].view(n_columns, -1)


@functools.cache
def find_block_rows() -> int:
    """Return how many rows torch puts into one block on this machine."""
    codes = torch.zeros(128, 2, dtype=torch.int32)
    codes[32, 0] = 1
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1).view(-1)
    # in a block of 64 rows, row 32 shares the first byte with row 0
    return 64 if int(packed.nonzero()[0]) == 0 else 32


def describe_kernels() -> str:
    """Say in one line which kernels int4 and int8 models get on this machine's CPU."""
    capability = torch.backends.cpu.get_cpu_capability()
    if int4_layout() == "tiles":
        amx = " and AMX" if has_amx() else "; no AMX, so prompts are expanded for torch's products"
        return f"our int4 kernels (AVX512-BF16{amx}), torch's int8, bf16 activations, {capability}"
    why = obstacle() or "our int4 kernels failed their proof"
    return f"{_describe_torch(capability)} ({why})"


def _describe_torch(capability: str) -> str:
    if not verify_layout():
        return f"int4 expanded before each product: torch's packed kernel is unknown ({capability})"
    slow = "" if capability.startswith("AVX") else "; without AVX2 or AVX512 it is slow"
    return f"torch's packed int4 and int8, bf16 activations, {capability}{slow}"


def int4_layout() -> Layout | None:
    """Choose the layout of int4 weights for this machine's CPU; None: no kernel takes them."""
    if are_proved():
        return "tiles"
    return "torch" if verify_layout() else None


@functools.cache
def verify_layout() -> bool:
    """Prove on a small matrix that this machine packs as `expanded` undoes."""
    weight = quantize_int4(torch.randn(176, 64, generator=torch.Generator().manual_seed(1)), 32)
    expected = dequantize(weight, torch.bfloat16)
    packed = pack(weight)
    found = torch.cat([matrix.T for _, matrix in expanded(packed, 192)])
    product = torch.ops.aten._weight_int4pack_mm_for_cpu(
        torch.eye(64, dtype=torch.bfloat16), packed.codes, 32, packed.scales_zeros
    ).T
    return torch.equal(found, expected) and torch.allclose(product, expected, atol=1e-2)


def _kernel_group(n_columns: int, group_size: int) -> int | None:
    """Return the largest group of the kernel that divides both."""
    for group in KERNEL_GROUP_SIZES:
        if group_size % group == 0 and n_columns % group == 0:
            return group
    return None
