from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.checkpoints import SHAPES, write_checkpoint
from mergeline.cli.command_line import main
from tests.builders.tiny_checkpoints import make_mistral

ROOT = Path(__file__).parents[2]
GOOD = "merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\nparameters:\n  t: 0.5\n"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two models and a good recipe."""
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float32)
    (tmp_path / "good.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_merge_on_the_cpu_imports_no_torch_and_no_compiler(workplace: Path) -> None:
    program = "import sys; from mergeline.cli.command_line import main; code = main(sys.argv[1:])"
    program += "; print(code, [name for name in ('torch', 'numba') if name in sys.modules])"
    for output, device in (("first", "cpu"), ("second", "cpu"), ("third", "auto")):
        if device == "auto" and torch.cuda.is_available():
            continue
        command = [sys.executable, "-c", program, "merge", "good.yaml", output, "--quiet", "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # The first may have to compile its loops.
        assert done.stdout.splitlines()[-1] in (["0 []", "0 ['numba']"] if output == "first" else ["0 []"])
    for arguments in (["verify", "first"], ["plan", "good.yaml"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0 []"


BROKEN = {
    "no such file": (None, "broken.yaml: no such recipe file; check the path."),
    "not YAML": ("a: [", "broken.yaml:1: not valid YAML"),
    "unknown key": (GOOD.replace("base_model", "base_modle"), "base_modle: unknown key. Did you mean `base_model`?"),
    "unknown method": (GOOD.replace("slerp", "slurp"), "unknown method 'slurp'. Did you mean `slerp`?"),
    "missing parameter": (GOOD.replace("parameters:\n  t: 0.5\n", ""), "`t` is required and nothing sets it"),
    "value out of range": (GOOD.replace("0.5", "1.5"), "`t` must lie in [0, 1], found 1.5"),
    "unknown parameter": (
        GOOD.replace("t: 0.5", "t: 0.5\n  weigth: 1"),
        "parameters.weigth: slerp has no such parameter",
    ),
    "missing model": (GOOD.replace("model: b", "model: ./nowhere"), "./nowhere: no such directory"),
    "wrong dtype": (GOOD + "dtype: bfloat", "dtype: input should be 'bfloat16'"),
    "layers beyond the model": (
        "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 99]}]\n",
        "[0, 99] reaches beyond a, which has 5 layers",
    ),
    "three models": (GOOD.replace("parameters", "  - model: c\nparameters"), "slerp merges exactly 2 models, found 3"),
    "another size": (GOOD.replace("model: b", "model: wide"), "needs equal shapes"),
}


@pytest.mark.parametrize("command", ["plan", "merge"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_recipe_is_one_line_and_nothing_is_written(
    kind: str, command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, sentence = BROKEN[kind]
    make_mistral(workplace / "c", 3)
    make_mistral(workplace / "wide", 3, layers=1, intermediate=64)
    config = json.loads((workplace / "a" / "config.json").read_text())
    if kind == "another size":
        (workplace / "wide" / "config.json").write_text(json.dumps(config))
        make_mistral(workplace / "wide", 3, intermediate=64)
    if text is not None:
        (workplace / "broken.yaml").write_text(text)
    before = sorted(workplace.rglob("*"))
    assert main([command, "broken.yaml", *(["out"] if command == "merge" else [])]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert sentence in lines[0]
    assert all(line.startswith("mergeline: error: ") for line in lines)
    assert "Traceback" not in output.err
    if kind not in ("missing parameter", "another size"):
        assert len(lines) == 1
    assert sorted(workplace.rglob("*")) == before


def test_problems_come_as_json_too(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "good.yaml").write_text(GOOD.replace("0.5", "2"))
    assert main(["plan", "good.yaml", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "PlanError"
    assert "[0, 1]" in answer["problems"][0]


def test_plan_merge_and_verify_speak_json(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*arguments: str) -> dict[str, object]:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    digest = answer("plan", "good.yaml")["digest"]
    assert answer("merge", "good.yaml", "out")["plan_digest"] == digest
    assert answer("verify", "out")["plan_digest"] == digest


def test_failed_run_has_status_one(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "good.yaml", "out", "--quiet"]) == 0
    (workplace / "out" / "config.json").write_text("{}")
    assert main(["verify", "out"]) == 1
    assert "config.json has" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["recipe", "pipeline"])
def test_schema_is_json(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "good.yaml"]])
def test_help_and_plan_import_neither_torch_nor_prefect(arguments: list[str], workplace: Path) -> None:
    code = (
        "import sys; from mergeline.cli.command_line import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'transformers', 'lm_eval', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workplace)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def seven_billion(tmp_path: Path) -> Path:
    """Sparse files of the mission's true shapes: one parent bfloat16, one float16 with two rows more."""
    first, second = "OpenPipe/mistral-ft-optimized-1218", "mlabonne/NeuralHermes-2.5-Mistral-7B"
    write_checkpoint(tmp_path / first, SHAPES["7B"])
    write_checkpoint(tmp_path / second, replace(SHAPES["7B"], vocabulary=32002), dtype="float16")
    return tmp_path


def test_missions_recipe_is_planned_from_seven_billion_true_shapes(seven_billion: Path) -> None:
    command = [sys.executable, "-m", "mergeline", "plan", str(ROOT / "configs/merges/marcoro14-7b-slerp.yaml")]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=seven_billion)
    elapsed = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert "7.242 billion parameters in 291 tensors" in done.stdout
    assert "has 32000 rows" in done.stdout
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in rows["layer 31"].split("|")[2:5]] == ["1", "0", "0.5"]
    assert [cell.strip() for cell in rows["layer 8"].split("|")[2:5]] == ["0.4935", "0.5065", "0.5"]
    # Under one second is shown on a quiet machine; a busy one may take longer, but never reads weights.
    assert elapsed < 10


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.disk_usage(tempfile.gettempdir()).free < 25e9, reason="needs 25 GB of disk")
def test_seven_billion_parameters_are_merged_in_constant_memory(seven_billion: Path) -> None:
    # The high-water mark of the program alone: getrusage() would count what pytest held when it started the program.
    code = (
        "from pathlib import Path; from mergeline.cli.command_line import main\n"
        f"status = main(['merge', {str(ROOT / 'configs/merges/marcoro14-7b-slerp.yaml')!r}, 'out', '--quiet'])\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(status, next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=seven_billion)
    status, peak_kilobytes = done.stdout.split()[-2:]
    assert status == "0", done.stderr
    assert int(peak_kilobytes) * 1024 < 1e9
    index = json.loads((seven_billion / "out" / "model.safetensors.index.json").read_text())
    assert len(index["weight_map"]) == 291
    assert main(["verify", "--load", str(seven_billion / "out")]) == 0
