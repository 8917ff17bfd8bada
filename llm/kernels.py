"""Kernels for int4 matrices on CPUs with AVX512-BF16, written as LLVM IR.

`llm.tiles` has the layout of the weights and makes the calls, `llm.native` compiles and runs; here
is the code. It is text in a small stable language, because a compiler is not on everybody's machine
while llvmlite is a wheel.

- `product_M`, decoding: M rows of input times the matrix. Bits of the codes become mantissas of
  bf16, which adds 128 or 16 to each code; pairs are multiplied and added in fp32 (`vdpbf16ps`), and
  what was added is taken off the sum of each group.
- `multiply`, prefill: many rows of input times the matrix, with AMX tiles.
- `expand`, prefill without AMX: some columns of the transposed matrix as bf16, for torch's GEMM.

The first multiplies codes and applies scale and zero to the sum of each group, in fp32; the others
multiply with the matrix rounded to bf16, as `llm.quantize.dequantize` rounds it. `vdpbf16ps`, AMX
and the rounding to bf16 take denormal numbers (below 1.2e-38) for zero.

All threads run the same function on the same job, and each takes blocks of columns from a counter
in the job until none is left; so a core that is busy with something else does less.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

# A job is an array of 64-bit words, which kernels know by their places.
JOB = (
    "next",  # the next tile to be taken; counts up
    "n_tiles",  # tiles of 32 columns
    "codes",  # address of the first tile
    "n_groups",  # groups of each tile
    "x",  # address of the input
    "x_stride",  # bytes from one row of the input to the next
    "n_pairs",  # of `multiply`: pairs of AMX tiles, 16 rows each, that the input has
    "out",  # address of the result
    "out_stride",  # bytes from one row of the result to the next
    "scratch",  # of `multiply`: address of memory for all threads
    "scratch_stride",  # bytes of it for each thread
    "thread",  # the next thread to ask for its part of it; counts up
)
PRODUCT_ROWS = (1, 2, 3, 4)  # numbers of rows that there is a `product_M` for
TILE_COLUMNS = 32  # columns of the result; two vectors, which share what is loaded of the input
UNIT = 32  # positions of the input in one AMX tile
PANEL_UNITS = 16  # at once: 32 KB of weights as bf16, and the input's panel stays in cache too
BLOCK_TILES = 4  # taken at once: of decoding's codes 0.3 MB, some tens of microseconds
AMX_BYTES = 1024  # of one AMX tile: 16 rows of 64
PANEL_BYTES = 2 * PANEL_UNITS * AMX_BYTES
_STEP = 8  # positions of the input in one vector of codes: four pairs
# Ahead in the codes, since the hardware's own prefetching stops at every page.
_PREFETCH_BYTES = 4096

_V16F = "<16 x float>"
_V16I = "<16 x i32>"
_V32H = "<32 x i16>"
_V32B = "<32 x bfloat>"
_DECLARATIONS = f"""
declare {_V16F} @llvm.x86.avx512bf16.dpbf16ps.512({_V16F}, {_V32B}, {_V32B})
declare float @llvm.vector.reduce.fadd.v16f32(float, {_V16F})
declare {_V16F} @llvm.x86.avx512.permvar.sf.512({_V16F}, {_V16I})
declare {_V32B} @llvm.x86.avx512bf16.cvtne2ps2bf16.512({_V16F}, {_V16F})
declare {_V16F} @llvm.fma.v16f32({_V16F}, {_V16F}, {_V16F})
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
"""
# Eight AMX registers of 16 rows of 64 bytes: palette 1, bytes per row, rows.
_CONFIG = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [16] * 8 + [0] * 8
_AMX = f"""
@tiles = private constant [64 x i8] [{", ".join(f"i8 {octet}" for octet in _CONFIG)}], align 64
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tileloadd64(i8, ptr, i64)
declare void @llvm.x86.tilestored64(i8, ptr, i64)
declare void @llvm.x86.tdpbf16ps(i8, i8, i8)
"""


class _Code:
    """Writes one function, line by line; names of values are made up."""

    def __init__(self, name: str) -> None:
        self._head = f"define void @{name}(ptr %job) {{"
        self._variables: list[str] = []  # at the beginning, where the compiler finds them
        self._lines: list[str] = []
        self._n = 0

    def let(self, expression: str) -> str:
        """Add an instruction with a value; return the value's name."""
        self._n += 1
        self._lines.append(f"  %v{self._n} = {expression}")
        return f"%v{self._n}"

    def do(self, instruction: str) -> None:
        """Add an instruction without a value."""
        self._lines.append(f"  {instruction}")

    def word(self, name: str) -> str:
        """Return a word of the job."""
        return self.load("i64", self.let(f"getelementptr i64, ptr %job, i64 {JOB.index(name)}"))

    def pointer(self, name: str) -> str:
        return self.let(f"inttoptr i64 {self.word(name)} to ptr")

    def at(self, pointer: str, n_bytes: str | int) -> str:
        return self.let(f"getelementptr i8, ptr {pointer}, i64 {n_bytes}")

    def load(self, kind: str, pointer: str, alignment: int = 0) -> str:
        aligned = f", align {alignment}" if alignment else ""
        return self.let(f"load {kind}, ptr {pointer}{aligned}")

    def times(self, a: str, b: str | int) -> str:
        return self.let(f"mul i64 {a}, {b}")

    def plus(self, a: str, b: str | int) -> str:
        return self.let(f"add i64 {a}, {b}")

    def smaller(self, a: str, b: str) -> str:
        is_less = self.let(f"icmp slt i64 {a}, {b}")
        return self.let(f"select i1 {is_less}, i64 {a}, i64 {b}")

    def take(self, name: str, n: int) -> str:
        """Count a word of the job up for all threads; return what it was."""
        place = self.let(f"getelementptr i64, ptr %job, i64 {JOB.index(name)}")
        return self.let(f"atomicrmw add ptr {place}, i64 {n} seq_cst")

    def variable(self, kind: str) -> str:
        """Return the address of a local variable, which the compiler keeps in a register."""
        name = f"%variable{len(self._variables)}"
        self._variables.append(f"  {name} = alloca {kind}")
        return name

    def splat(self, kind: str, n: int, value: str) -> str:
        one = self.let(f"insertelement <{n} x {kind}> poison, {kind} {value}, i32 0")
        return self.let(
            f"shufflevector <{n} x {kind}> {one}, <{n} x {kind}> poison, <{n} x i32> "
            "zeroinitializer"
        )

    def call(self, kind: str, name: str, *arguments: str) -> str:
        return self.let(f"call {kind} @llvm.{name}({', '.join(arguments)})")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.call(_V16F, "fma.v16f32", f"{_V16F} {a}", f"{_V16F} {b}", f"{_V16F} {c}")

    def bf16_to_float(self, pointer: str) -> str:
        """Load 16 bf16 and widen them."""
        halves = self.load("<16 x i16>", pointer, 32)
        wide = self.let(f"zext <16 x i16> {halves} to {_V16I}")
        high = self.let(f"shl {_V16I} {wide}, splat (i32 16)")
        return self.let(f"bitcast {_V16I} {high} to {_V16F}")

    def to_bf16(self, low: str, high: str) -> str:
        """Round two vectors of 16 fp32 to one of 32 bf16, to nearest even."""
        name = "x86.avx512bf16.cvtne2ps2bf16.512"
        return self.call(_V32B, name, f"{_V16F} {high}", f"{_V16F} {low}")

    def broadcast_pair(self, pointer: str) -> str:
        """Load two bf16 and repeat them 16 times."""
        pairs = self.splat("i32", 16, self.load("i32", pointer, 4))
        return self.let(f"bitcast {_V16I} {pairs} to {_V32B}")

    def broadcast_float(self, pointer: str) -> str:
        return self.splat("float", 16, self.load("float", pointer, 4))

    def add_products(self, total: str, a: str, b: str) -> str:
        """Add to each of 16 sums the products of its two pairs."""
        name = "x86.avx512bf16.dpbf16ps.512"
        return self.call(_V16F, name, f"{_V16F} {total}", f"{_V32B} {a}", f"{_V32B} {b}")

    @contextmanager
    def loop(self, stop: str, *, start: str = "0", step: int = 1) -> Iterator[str]:
        """Run what is written inside for a counter from `start` below `stop`."""
        counter = self.variable("i64")
        self.do(f"store i64 {start}, ptr {counter}")
        head, body, end = (f"{name}{self._n}" for name in ("head", "body", "end"))
        self.do(f"br label %{head}")
        self._lines.append(f"{head}:")
        value = self.load("i64", counter)
        goes_on = self.let(f"icmp slt i64 {value}, {stop}")
        self.do(f"br i1 {goes_on}, label %{body}, label %{end}")
        self._lines.append(f"{body}:")
        yield value
        self.do(f"store i64 {self.plus(value, step)}, ptr {counter}")
        self.do(f"br label %{head}")
        self._lines.append(f"{end}:")

    @contextmanager
    def tiles(self, n_at_once: int) -> Iterator[str]:
        """Run what is inside for every tile that this thread gets hold of."""
        with self.blocks(n_at_once) as (first, stop), self.loop(stop, start=first) as tile:
            yield tile

    @contextmanager
    def blocks(self, n_at_once: int) -> Iterator[tuple[str, str]]:
        """Run what is inside for every block of tiles, first and stop, that this thread gets."""
        n_tiles = self.word("n_tiles")
        head, body, end = (f"{name}{self._n}" for name in ("grab", "grabbed", "done"))
        self.do(f"br label %{head}")
        self._lines.append(f"{head}:")
        first = self.take("next", n_at_once)
        is_left = self.let(f"icmp slt i64 {first}, {n_tiles}")
        self.do(f"br i1 {is_left}, label %{body}, label %{end}")
        self._lines.append(f"{body}:")
        yield first, self.smaller(self.plus(first, n_at_once), n_tiles)
        self.do(f"br label %{head}")
        self._lines.append(f"{end}:")

    def text(self) -> str:
        return "\n".join([self._head, *self._variables, *self._lines, "  ret void", "}", ""])


def module(group_size: int, has_zeros: bool, has_amx: bool) -> str:
    """Return the text of all kernels for one form of weights."""
    parts = [_DECLARATIONS, *(_product(m, group_size, has_zeros) for m in PRODUCT_ROWS)]
    if has_amx:
        parts += [_AMX, _multiply(group_size, has_zeros)]
    else:
        parts += [_expand(group_size, has_zeros)]
    return "\n".join(parts)


def bytes_per_group(group_size: int, has_zeros: bool) -> int:
    """Return the bytes of one group of one tile: codes, scales, zeros."""
    return TILE_COLUMNS * group_size // 2 + 2 * TILE_COLUMNS * (2 if has_zeros else 1)


def _product(n_rows: int, group_size: int, has_zeros: bool) -> str:
    """Return `product_M` for M rows of input."""
    code = _Code(f"product_{n_rows}")
    codes, x, out = (code.pointer(name) for name in ("codes", "x", "out"))
    x_stride, out_stride, n_groups = (
        code.word(name) for name in ("x_stride", "out_stride", "n_groups")
    )
    group_bytes = bytes_per_group(group_size, has_zeros)
    halves, rows = range(2), range(n_rows)
    # Sums that do not wait for each other: the multiplication takes six cycles.
    n_chains = 2 if n_rows == 1 else 1
    totals = {(m, h): code.variable(_V16F) for m in rows for h in halves}
    sums = code.let(f"alloca i64, i64 {code.times(n_groups, n_rows)}, align 64")
    for m in rows:
        row = code.at(x, code.times(x_stride, m))
        _sum_groups(code, row, code.at(sums, code.times(n_groups, 8 * m)), n_groups, group_size)
    with code.tiles(BLOCK_TILES) as tile:
        for total in totals.values():
            code.do(f"store {_V16F} zeroinitializer, ptr {total}")
        start = code.at(codes, code.times(tile, code.times(n_groups, group_bytes)))
        with code.loop(n_groups) as group:
            here = code.at(start, code.times(group, group_bytes))
            for line in range(0, group_bytes, 64):
                code.do(
                    "call void @llvm.prefetch.p0(ptr "
                    f"{code.at(here, _PREFETCH_BYTES + line)}, i32 0, i32 3, i32 1)"
                )
            chains = {(m, h, c): "zeroinitializer" for m in rows for h in halves for c in (0, 1)}
            x_here = [
                code.at(code.at(x, code.times(x_stride, m)), code.times(group, 2 * group_size))
                for m in rows
            ]
            for step in range(group_size // _STEP):
                vectors = [_raised_codes(code, here, 2 * step + h) for h in halves]
                for pair in range(4):
                    inputs = [
                        code.broadcast_pair(code.at(x_here[m], 16 * step + 4 * pair)) for m in rows
                    ]
                    for h in halves:
                        for m in rows:
                            key = (m, h, pair % n_chains)
                            chains[key] = code.add_products(
                                chains[key], vectors[h][pair], inputs[m]
                            )
            scales, zeros = _scales(code, here, group_size, has_zeros)
            for m in rows:
                place = code.at(sums, code.times(code.plus(code.times(n_groups, m), group), 8))
                raised, sum_of_x = (code.broadcast_float(code.at(place, i)) for i in (0, 4))
                for h in halves:
                    chain = chains[m, h, 0]
                    if n_chains == 2:
                        chain = code.let(f"fadd {_V16F} {chain}, {chains[m, h, 1]}")
                    chain = code.let(f"fsub {_V16F} {chain}, {raised}")
                    total = code.fma(chain, scales[h], code.load(_V16F, totals[m, h]))
                    if has_zeros:
                        total = code.fma(zeros[h], sum_of_x, total)
                    code.do(f"store {_V16F} {total}, ptr {totals[m, h]}")
        for m in rows:
            row = code.at(out, code.times(out_stride, m))
            both = code.to_bf16(*(code.load(_V16F, totals[m, h]) for h in halves))
            place = code.at(row, code.times(tile, 2 * TILE_COLUMNS))
            code.do(f"store {_V32B} {both}, ptr {place}, align 2")
    return code.text()


def _raised_codes(code: _Code, group: str, line: int) -> list[str]:
    """Load 64 bytes of codes; return four vectors of bf16 pairs, each `_RAISED` above code - 8.

    Four bits at the low end of a mantissa of seven make 128 + code under the exponent of 128; at
    its high end they make 16 + code under that of 16.
    """
    found = []
    for offset in (0, 1):
        # loading again one byte further on is a shift by eight bits that costs nothing
        here = code.load(_V32H, code.at(group, 64 * line + offset), 1 if offset else 64)
        shifted = code.let(f"lshr {_V32H} {here}, splat (i16 1)")
        for halves, mask, exponent in ((here, 0b1111, 0x4300), (shifted, 0b1111000, 0x4180)):
            bits = code.let(f"and {_V32H} {halves}, splat (i16 {mask})")
            bits = code.let(f"or {_V32H} {bits}, splat (i16 {exponent})")
            found.append(code.let(f"bitcast {_V32H} {bits} to {_V32B}"))
    return found


# How far the pairs of a step stand above code - 8.
_RAISED = (128 + 8, 16 + 8, 128 + 8, 16 + 8)


def _sum_groups(code: _Code, x: str, sums: str, n_groups: str, group_size: int) -> None:
    """Write two fp32 per group: what `_raised_codes` adds to its products, and the sum of x."""
    factors = [_bf16(raised) for raised in _RAISED for _ in range(2)] * 4
    constants = [
        "<" + ", ".join(f"bfloat 0xR{factor:04X}" for factor in row) + ">"
        for row in (factors, [_bf16(1)] * 32)
    ]
    with code.loop(n_groups) as group:
        here = code.at(x, code.times(group, 2 * group_size))
        totals = ["zeroinitializer"] * 2
        for unit in range(group_size // UNIT):
            values = code.load(_V32B, code.at(here, 2 * UNIT * unit), 2)
            totals = [
                code.add_products(total, values, constant)
                for total, constant in zip(totals, constants, strict=True)
            ]
        for i, total in enumerate(totals):
            one = code.let(
                f"call reassoc float @llvm.vector.reduce.fadd.v16f32(float -0.0, {_V16F} {total})"
            )
            place = code.at(sums, code.plus(code.times(group, 8), 4 * i))
            code.do(f"store float {one}, ptr {place}, align 4")


def _bf16(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


def _expand(group_size: int, has_zeros: bool) -> str:
    """Return `expand`: tiles as bf16, row k of the result with all columns of the job."""
    code = _Code("expand")
    codes, out = code.pointer("codes"), code.pointer("out")
    out_stride, n_groups = code.word("out_stride"), code.word("n_groups")
    group_bytes = bytes_per_group(group_size, has_zeros)
    with code.tiles(BLOCK_TILES) as tile:
        start = code.at(codes, code.times(tile, code.times(n_groups, group_bytes)))
        column = code.at(out, code.times(tile, 2 * TILE_COLUMNS))
        with code.loop(n_groups) as group:
            here = code.at(start, code.times(group, group_bytes))
            rows = code.at(column, code.times(code.times(group, group_size), out_stride))
            scales, zeros = _scales(code, here, group_size, has_zeros)
            for step in range(group_size // _STEP):
                for pair in range(4):
                    values = _values(code, here, step, pair, scales, zeros)
                    for parity in range(2):
                        both = code.to_bf16(values[0, parity], values[1, parity])
                        row = code.at(rows, code.times(out_stride, 8 * step + 2 * pair + parity))
                        code.do(f"store {_V32B} {both}, ptr {row}, align 2")
    return code.text()


def _multiply(group_size: int, has_zeros: bool) -> str:
    """Return `multiply`: many rows of input, in tiles of 16 rows by 32 positions, on AMX.

    A thread takes some tiles of columns and goes along the input in panels that stay in its
    cache: for each tile it writes the panel's weights as AMX wants them, multiplies all rows of
    input with them, and keeps the sums in its scratch memory until the last panel is done.
    """
    code = _Code("multiply")
    codes, x, out = code.pointer("codes"), code.pointer("x"), code.pointer("out")
    n_pairs, out_stride, n_groups = (code.word(n) for n in ("n_pairs", "out_stride", "n_groups"))
    group_bytes = bytes_per_group(group_size, has_zeros)
    units_per_group = group_size // UNIT
    thread = code.take("thread", 1)
    mine = code.at(code.pointer("scratch"), code.times(thread, code.word("scratch_stride")))
    weights, results = mine, code.at(mine, PANEL_BYTES)
    result_bytes = code.times(n_pairs, 4 * AMX_BYTES)
    groups_per_panel = PANEL_UNITS // units_per_group
    code.do("call void @llvm.x86.ldtilecfg(ptr @tiles)")
    with code.blocks(BLOCK_TILES) as (first, stop):
        n_here = code.let(f"sub i64 {stop}, {first}")
        code.do(
            f"call void @llvm.memset.p0.i64(ptr align 64 {results}, i8 0, "
            f"i64 {code.times(n_here, result_bytes)}, i1 false)"
        )
        with code.loop(n_groups, step=groups_per_panel) as panel:
            left = code.let(f"sub i64 {n_groups}, {panel}")
            n_in_panel = code.smaller(left, str(groups_per_panel))
            n_units = code.times(n_in_panel, units_per_group)
            # two tiles of 16 rows for each unit and pair before this panel
            x_here = code.at(
                x, code.times(code.times(panel, n_pairs), 2 * units_per_group * AMX_BYTES)
            )
            with code.loop(stop, start=first) as tile:
                place = code.plus(code.times(tile, n_groups), panel)
                _write_panel(
                    code,
                    code.at(codes, code.times(place, group_bytes)),
                    weights,
                    n_in_panel,
                    group_size,
                    has_zeros,
                )
                sums = code.at(
                    results, code.times(code.let(f"sub i64 {tile}, {first}"), result_bytes)
                )
                with code.loop(n_pairs) as pair:
                    _multiply_pair(
                        code,
                        code.at(x_here, code.times(code.times(pair, n_units), 2 * AMX_BYTES)),
                        weights,
                        code.at(sums, code.times(pair, 4 * AMX_BYTES)),
                        n_units,
                    )
        with code.loop(stop, start=first) as tile:
            sums = code.at(results, code.times(code.let(f"sub i64 {tile}, {first}"), result_bytes))
            column = code.at(out, code.times(tile, 2 * TILE_COLUMNS))
            with code.loop(code.times(n_pairs, 2)) as half, code.loop("16") as row:
                here = code.at(code.at(sums, code.times(half, 2 * AMX_BYTES)), code.times(row, 64))
                parts = [code.load(_V16F, code.at(here, i * AMX_BYTES), 64) for i in (0, 1)]
                both = code.to_bf16(*parts)
                number = code.plus(code.times(half, 16), row)
                place = code.at(column, code.times(number, out_stride))
                code.do(f"store {_V32B} {both}, ptr {place}, align 2")
    code.do("call void @llvm.x86.tilerelease()")
    return code.text()


def _write_panel(
    code: _Code, start: str, weights: str, n_groups: str, group_size: int, has_zeros: bool
) -> None:
    """Write some groups of a tile as AMX tiles: 16 pairs of rows by 16 columns, two per unit."""
    mixed = ", ".join(f"i32 {i // 2 + 16 * (i % 2)}" for i in range(32))
    with code.loop(n_groups) as group:
        here = code.at(start, code.times(group, bytes_per_group(group_size, has_zeros)))
        unit = code.at(weights, code.times(group, 2 * AMX_BYTES * (group_size // UNIT)))
        scales, zeros = _scales(code, here, group_size, has_zeros)
        for step in range(group_size // _STEP):
            for pair in range(4):
                values = _values(code, here, step, pair, scales, zeros)
                for half in range(2):
                    both = code.to_bf16(values[half, 0], values[half, 1])
                    row = code.let(
                        f"shufflevector {_V32B} {both}, {_V32B} poison, <32 x i32> <{mixed}>"
                    )
                    offset = (step // 4 * 2 + half) * AMX_BYTES + (step % 4 * 4 + pair) * 64
                    code.do(f"store {_V32B} {row}, ptr {code.at(unit, offset)}, align 64")


def _multiply_pair(code: _Code, x: str, weights: str, sums: str, n_units: str) -> None:
    """Multiply two tiles of 16 rows of input with the panel of one tile of columns.

    AMX registers: 0 to 3 the sums, 4 and 5 input, 6 and 7 weights.
    """
    for i in range(4):
        code.do(_tile("tileloadd64", i, code.at(sums, i * AMX_BYTES)))
    with code.loop(n_units) as unit:
        place = code.times(unit, AMX_BYTES)
        x_rows = [code.at(x, place), code.at(code.at(x, code.times(n_units, AMX_BYTES)), place)]
        columns = [code.at(weights, code.plus(code.times(place, 2), i * AMX_BYTES)) for i in (0, 1)]
        code.do(_tile("tileloadd64", 6, columns[0]))
        code.do(_tile("tileloadd64", 4, x_rows[0]))
        code.do("call void @llvm.x86.tdpbf16ps(i8 0, i8 4, i8 6)")
        code.do(_tile("tileloadd64", 7, columns[1]))
        code.do("call void @llvm.x86.tdpbf16ps(i8 1, i8 4, i8 7)")
        code.do(_tile("tileloadd64", 5, x_rows[1]))
        code.do("call void @llvm.x86.tdpbf16ps(i8 2, i8 5, i8 6)")
        code.do("call void @llvm.x86.tdpbf16ps(i8 3, i8 5, i8 7)")
    for i in range(4):
        code.do(_tile("tilestored64", i, code.at(sums, i * AMX_BYTES)))


def _tile(name: str, register: int, pointer: str) -> str:
    return f"call void @llvm.x86.{name}(i8 {register}, ptr {pointer}, i64 64)"


def _scales(
    code: _Code, group: str, group_size: int, has_zeros: bool
) -> tuple[list[str], list[str]]:
    """Load scales and zeros of both halves of a tile, fp32."""
    at = code.at(group, TILE_COLUMNS * group_size // 2)
    scales = [code.bf16_to_float(code.at(at, 32 * half)) for half in range(2)]
    if not has_zeros:
        return scales, ["zeroinitializer"] * 2
    return scales, [code.bf16_to_float(code.at(at, 64 + 32 * half)) for half in range(2)]


def _values(
    code: _Code, group: str, step: int, pair: int, scales: list[str], zeros: list[str]
) -> dict[tuple[int, int], str]:
    """Return the values of a pair of rows, by (half of the tile, which of the pair), fp32."""
    table = "<" + ", ".join(f"float {value - 8}.0" for value in range(16)) + ">"
    found = {}
    for half in range(2):
        lanes = code.load(_V16I, code.at(group, 64 * (2 * step + half)), 64)
        for parity in range(2):
            shift = 4 * pair + 16 * parity
            index = code.let(f"lshr {_V16I} {lanes}, splat (i32 {shift})") if shift else lanes
            value = code.call(
                _V16F, "x86.avx512.permvar.sf.512", f"{_V16F} {table}", f"{_V16I} {index}"
            )
            found[half, parity] = code.fma(value, scales[half], zeros[half])
    return found
