"""Machine code for loops: compiled by numba once, kept as object files, loaded by LLVM without numba.

numba costs half a second to import and as much again before it runs its first function, so a process that finds its
loops in the cache never imports it: it loads the object code with llvmlite and calls it through ctypes, which lets
go of the GIL. Object files are named by a digest of everything they depend on: the loop's source, the sources of this
package, numba's and llvmlite's versions, and the processor. A cache that cannot be written is not an error: loops
are then compiled in every process.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import tempfile
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mergeline.methods._kernels.source import LoopSource

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MERGELINE_CACHE"
"""Environment variable that names another directory for compiled loops; default ``~/.cache/mergeline``."""

_DIGEST_BYTES = 32
_lock = threading.RLock()
_loaded: dict[str, Loop] = {}


class Loop:
    """A compiled function of one-dimensional and two-dimensional contiguous arrays and integers."""

    def __init__(self, address: int, signature: tuple[str, ...]) -> None:
        """Take the machine code's address and the types it was compiled for."""
        self._expected = [(np.dtype(kind.partition("[")[0]), _dimensions(kind)) for kind in signature]
        types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
        for kind, dimensions in zip(signature, map(_dimensions, signature), strict=True):
            types += [_INTEGERS[kind]] if dimensions is None else _ARRAY + [ctypes.c_int64] * (2 * dimensions)
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)

    def __call__(self, *arguments: np.ndarray[Any, Any] | int) -> None:
        """Run on arguments of the types compiled for.

        Raises:
            TypeError: If an array is of another dtype or shape, or not contiguous.
        """
        # numba's convention: place for a result, place for an exception, then every argument taken apart.
        unused = ctypes.c_void_p()
        flat: list[Any] = [ctypes.addressof(unused), ctypes.addressof(unused)]
        for argument, (dtype, dimensions) in zip(arguments, self._expected, strict=True):
            if isinstance(argument, np.ndarray):
                # Machine code believes what it is given.
                if argument.dtype != dtype or argument.ndim != dimensions or not argument.flags.c_contiguous:
                    raise TypeError(
                        f"a compiled loop takes a contiguous {dtype} array of {dimensions} dimensions, not "
                        f"{argument.dtype} of {argument.ndim}"
                    )
                pointer = argument.__array_interface__["data"][0]
                flat += [None, None, argument.size, argument.itemsize, pointer, *argument.shape, *argument.strides]
            else:
                flat.append(argument)
        status = self._function(*flat)
        if status:
            raise RuntimeError(f"a compiled loop ended with status {status}")


_INTEGERS = {"i8": ctypes.c_int64, "u8": ctypes.c_uint64, "u4": ctypes.c_uint32}
_ARRAY: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]


def _dimensions(kind: str) -> int | None:
    return kind.count(",") + 1 if "[" in kind else None


def load(source: LoopSource) -> Loop:
    """Return the loop's machine code, from memory, from the cache, or compiled now."""
    digest = _digest(source)
    with _lock:
        if digest not in _loaded:
            code = _read(digest)
            if code is None:
                code = _compile(source)
                _write(digest, code)
            _loaded[digest] = Loop(_link(digest, code), source.signature)
        return _loaded[digest]


def processor() -> tuple[str, str]:
    """Return the processor to compile for and its features, as LLVM names them; numba's variables override."""
    import llvmlite.binding as llvm

    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    if "NUMBA_CPU_FEATURES" in os.environ:
        return name, os.environ["NUMBA_CPU_FEATURES"]
    # As in numba: another processor's features are its own.
    return name, "" if "NUMBA_CPU_NAME" in os.environ else llvm.get_host_cpu_features().flatten()


def cache_directory() -> Path:
    """Return where compiled loops are kept."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]) / "loops"
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "mergeline" / "loops"


@cache
def _surroundings() -> bytes:
    """Return what every loop depends on beside its own source."""
    here = Path(__file__).parent
    sources = b"\0".join((here / name).read_bytes() for name in ("rounding.py", "loops.py", "native.py"))
    return sources + repr((version("numba"), version("llvmlite"), processor())).encode()


def _digest(source: LoopSource) -> str:
    return hashlib.sha256(repr((source.text, source.signature)).encode() + _surroundings()).hexdigest()


def _read(digest: str) -> bytes | None:
    """Return the object code kept under a digest; None where there is none or it is damaged."""
    try:
        content = (cache_directory() / f"{digest}.o").read_bytes()
    except OSError:
        return None
    check, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == check else None


def _write(digest: str, code: bytes) -> None:
    directory = cache_directory()
    try:
        # Machine code that is run: nobody else may write it.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(file.name).replace(directory / f"{digest}.o")
    except OSError as problem:
        logger.info("Compiled loops are not kept: %s cannot be written (%s)", directory, problem.strerror)


_SYMBOL = "mergeline_loop"


def _compile(source: LoopSource) -> bytes:
    """Compile a loop to object code for the processor."""
    import llvmlite.binding as llvm
    from numba import njit  # type: ignore[attr-defined]

    names: dict[str, Any] = {}
    exec(compile(source.text, "<loop>", "exec"), names)
    options: dict[str, Any] = {
        "error_model": "numpy",
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "_nrt": False,
    }
    dispatcher: Any = njit(f"void({','.join(source.signature)})", **options)(names["loop"])
    (result,) = dispatcher.overloads.values()
    module = llvm.parse_assembly(str(result.library._final_module))
    module.get_function(result.fndesc.llvm_func_name).name = _SYMBOL
    name, features = processor()
    target = llvm.Target.from_triple(module.triple)
    return target.create_target_machine(name, features, opt=3, reloc="pic", codemodel="small").emit_object(module)


@cache
def _linker() -> tuple[Any, Any]:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_lljit_compiler(machine), llvm.JITLibraryBuilder


_libraries: list[Any] = []
"""Linked code, kept from being freed."""


def _link(digest: str, code: bytes) -> int:
    compiler, builder = _linker()
    library = builder().add_object_img(code).export_symbol(_SYMBOL).link(compiler, digest)
    _libraries.append(library)
    return library[_SYMBOL]
