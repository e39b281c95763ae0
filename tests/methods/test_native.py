"""The cache of compiled loops."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mergeline.methods._kernels import native, source
from mergeline.methods._kernels.formula import record
from tests.methods.formulas import scaled

PROGRAM = """
import sys
import numpy as np
from mergeline.methods._kernels import native, source
drawn = np.zeros(8, np.uint8)
native.load(source.keep_source())(1, 2, 0, 2**31, drawn)
print(drawn.sum(), "numba" in sys.modules, "torch" in sys.modules)
"""


def in_process(cache: Path) -> list[str]:
    environment = os.environ | {native.CACHE_VARIABLE: str(cache)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_finds_the_loop_and_imports_no_numba(tmp_path: Path) -> None:
    drawn, has_numba, has_torch = in_process(tmp_path)
    assert (has_numba, has_torch) == ("True", "False")
    assert in_process(tmp_path) == [drawn, "False", "False"]


def test_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    drawn, *_ = in_process(tmp_path)
    (file,) = (tmp_path / "loops").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-100] + bytes(100))
    assert in_process(tmp_path)[:2] == [drawn, "True"]
    assert file.read_bytes() == content


def test_without_a_place_to_keep_them_loops_run_all_the_same(tmp_path: Path) -> None:
    # A file where the directory should be: nobody, not even root, can write below it.
    (tmp_path / "file").write_text("")
    assert in_process(tmp_path / "file")[1] == "True"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_cache_is_its_owners_alone(tmp_path: Path) -> None:
    in_process(tmp_path)
    assert (tmp_path / "loops").stat().st_mode & 0o077 == 0


def test_another_processor_has_loops_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(tmp_path)
    monkeypatch.setenv("NUMBA_CPU_NAME", "nehalem")
    in_process(tmp_path)
    assert len(list((tmp_path / "loops").iterdir())) == 2


def test_threads_that_want_the_same_loop_get_one() -> None:
    program, _ = record(scaled, 1, scale=2.0)
    wanted = source.write_source(program, ("F32",), "F64")
    loops: list[native.Loop] = []
    threads = [threading.Thread(target=lambda: loops.append(native.load(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 4
    assert len(set(map(id, loops))) == 1


def test_an_array_of_another_dtype_is_refused_before_machine_code_sees_it() -> None:
    loop = native.load(source.keep_source())
    with pytest.raises(TypeError, match="contiguous uint8 array of 1 dimensions"):
        loop(1, 2, 0, 3, np.zeros(8, np.uint16))
    with pytest.raises(TypeError, match="contiguous"):
        loop(1, 2, 0, 3, np.zeros(16, np.uint8)[::2])
