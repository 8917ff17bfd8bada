"""Compile kernels in this process and run them in torch's threads.

What it takes: Linux on x86-64 with AVX512-BF16, llvmlite, and a torch built on OpenMP. Kernels run
through `GOMP_parallel` of the very runtime that torch is linked to, so they share its threads:
none is started, none is woken twice, and no two pools fight for the cores.
"""

import ctypes
import functools
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm.kernels import JOB, PRODUCT_ROWS, module

_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512bf16")
_AMX_FEATURES = ("amx-tile", "amx-bf16")
# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): Linux wants to be asked before AMX is used.
_SYS_ARCH_PRCTL, _REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18


@dataclass(frozen=True, slots=True)
class Kernels:
    """Addresses of compiled functions by name; `engine` is what keeps them in memory."""

    addresses: Mapping[str, int]
    engine: Any

    @property
    def has_amx(self) -> bool:
        return "multiply" in self.addresses


def run(kernels: Kernels, name: str, **words: int) -> None:
    """Run a kernel in as many threads as torch uses; other Python threads go on meanwhile.

    Args:
        kernels: compiled.
        name: of the function.
        words: of its job, by their names in `llm.kernels.JOB`; 0 where not given.
    """
    job = (ctypes.c_int64 * len(JOB))(*(words.get(word, 0) for word in JOB))
    address = ctypes.c_void_p(kernels.addresses[name])
    _openmp().GOMP_parallel(address, job, torch.get_num_threads(), 0)


@functools.cache
def obstacle() -> str | None:
    """Say why kernels cannot be compiled here; None if they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "not Linux on x86-64"
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return "no AVX512, or torch was told not to use it"
    try:
        features = _host_features()
    except (ImportError, OSError, RuntimeError) as exc:
        return f"llvmlite cannot be used ({exc})"
    if missing := [name for name in _FEATURES if not features.get(name)]:
        return f"no {', '.join(missing)}"
    try:
        _ = _openmp().GOMP_parallel
    except (OSError, AttributeError):
        return "torch is not built on OpenMP"
    return None


@functools.cache
def has_amx() -> bool:
    """Say whether this process may use AMX for bf16."""
    features = _host_features()
    if not all(features.get(name) for name in _AMX_FEATURES):
        return False
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    return bool(syscall(_SYS_ARCH_PRCTL, _REQ_XCOMP_PERM, _XTILEDATA) == 0)


@functools.cache
def compiled(group_size: int, has_zeros: bool, with_amx: bool) -> Kernels:
    """Compile the kernels for one form of weights; a third of a second, once.

    Raises:
        RuntimeError: LLVM does not take them.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(module(group_size, has_zeros, with_amx))
    parsed.verify()
    wanted = (*_FEATURES, *(_AMX_FEATURES if with_amx else ()))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu="x86-64-v4", features=",".join(f"+{name}" for name in wanted), opt=3
    )
    # the usual passes of -O2 keep local variables in registers
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    names = [f"product_{m}" for m in PRODUCT_ROWS] + ["multiply" if with_amx else "expand"]
    return Kernels({name: engine.get_function_address(name) for name in names}, engine)


def _host_features() -> Mapping[str, bool]:
    import llvmlite.binding as llvm

    features: Mapping[str, bool] = llvm.get_host_cpu_features()
    return features


@functools.cache
def _openmp() -> ctypes.CDLL:
    """Return torch's library, through which symbols of its OpenMP runtime are found."""
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
