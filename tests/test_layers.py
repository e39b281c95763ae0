"""Which room of the engine may import which; how long modules are; what an import and ``--help`` cost."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "support": set[str](),
    "recipe": {"support"},
    "sources": {"support"},
    "methods": {"support"},
    "plan": {"support", "recipe", "sources", "methods"},
    "merge": {"support", "recipe", "sources", "methods", "plan"},
    "evaluation": {"support", "sources", "merge"},
    "publish": {"support", "recipe", "sources", "plan", "merge", "evaluation"},
    "tracking": {"support", "recipe", "sources", "plan", "merge", "evaluation", "publish"},
    "pipeline": {"support", "recipe", "sources", "methods", "plan", "merge", "evaluation", "publish", "tracking"},
}
"""Room -> rooms it may import, in the order data flows. ``cli`` may import all of them."""

COMMON = {"", "errors", "__version__"}
"""What every room may import of ``mergeline`` itself."""

OUTSIDE = {"flows", "tasks", "deployments", "benchmarks", "tests", "prefect"}
"""What imports the engine and is never imported by it."""

CHECKOUT_COMMANDS = {"flows", "deployments"}
"""What ``mergeline run`` and ``mergeline up`` start: ``cli`` may import these inside a function, never at its top."""

HEAVY = {"torch", "numpy", "transformers", "prefect", "mlflow", "huggingface_hub"}


def imports(path: Path, package: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Yield line, dotted name and whether it is at the module's top, of every import of a file wherever it stands."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = [*start, *(node.module.split(".") if node.module else [])]
            names = [".".join([*module, alias.name]) for alias in node.names]
        for name in names:
            yield node.lineno, name, node in tree.body


def forbidden_imports(root: Path) -> list[str]:
    """Return ``file:line imports name`` of every import in ``root/mergeline`` that the table does not allow."""
    wrong = []
    for path in sorted([*(root / "mergeline").rglob("*.py"), *(root / "mergeline").rglob("*.pyi")]):
        place = list(path.relative_to(root).with_suffix("").parts)
        room = place[1] if len(place) > 2 else ""
        for line, name, is_top in imports(path, place[:-1]):
            top, second, *_ = [*name.split("."), ""]
            if place[1] == "errors" or top != "mergeline":
                is_at_call = room == "cli" and top in CHECKOUT_COMMANDS and not is_top
                is_allowed = top not in {"mergeline"} | OUTSIDE or is_at_call
            elif room in ("", "cli"):
                # ``__main__`` is the command line; what ``__init__`` lifts is the public interface.
                is_allowed = not room or second in {"cli", *COMMON, *MAY_IMPORT}
            else:
                is_allowed = second in {room, *COMMON, *MAY_IMPORT.get(room, ())}
            if not is_allowed:
                wrong.append(f"{path.relative_to(root)}:{line} imports {name}")
    return wrong


def test_no_room_imports_a_higher_one() -> None:
    assert forbidden_imports(ROOT) == []


def test_the_table_holds_every_room_and_its_order() -> None:
    folders = [path.parent.name for path in (ROOT / "mergeline").glob("*/__init__.py")]
    assert sorted(folders) == sorted([*MAY_IMPORT, "cli"])
    rooms = list(MAY_IMPORT)
    for number, room in enumerate(rooms):
        assert MAY_IMPORT[room] <= set(rooms[:number]), room


@pytest.mark.parametrize(
    ("place", "code", "name"),
    [
        ("recipe/a.py", "def f():\n    from mergeline.methods import METHODS\n", "mergeline.methods.METHODS"),
        ("plan/a.py", "if TYPE_CHECKING:\n    import mergeline.merge.shard\n", "mergeline.merge.shard"),
        ("evaluation/worker/a.py", "from ...pipeline import language\n", "mergeline.pipeline.language"),
        ("tracking/a.py", "from mergeline import pipeline\n", "mergeline.pipeline"),
        ("tracking/a.py", "from mergeline import run_pipeline\n", "mergeline.run_pipeline"),
        ("sources/__init__.pyi", "from ..plan.inputs import X\n", "mergeline.plan.inputs.X"),
        ("errors.py", "from mergeline.support import text\n", "mergeline.support.text"),
        ("merge/a.py", "def f():\n    import flows.embedded\n", "flows.embedded"),
        ("cli/a.py", "import flows.embedded\n", "flows.embedded"),
        ("pipeline/a.py", "try:\n    from prefect import flow\nexcept ImportError: ...\n", "prefect.flow"),
    ],
)
def test_a_planted_import_is_found(place: str, code: str, name: str, tmp_path: Path) -> None:
    planted = tmp_path / "mergeline" / place
    planted.parent.mkdir(parents=True)
    planted.write_text(f"from mergeline.errors import InputError\n{code}" if "errors" not in place else code)
    (found,) = forbidden_imports(tmp_path)
    assert found.endswith(f" imports {name}")


@pytest.mark.parametrize(("folders", "limit"), [(["mergeline"], 300), (sorted(OUTSIDE - {"prefect"}), 400)])
def test_no_module_is_long(folders: list[str], limit: int) -> None:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length > limit} == {}


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(shown.stdout.split())


def test_importing_the_engine_loads_nothing_heavy() -> None:
    loaded = loaded_by("import mergeline")
    assert loaded.isdisjoint(HEAVY)
    assert len([name for name in loaded if name.partition(".")[0] == "mergeline"]) < 40


def test_the_gate_loads_no_report() -> None:
    loaded = loaded_by("import mergeline.publish.gate")
    assert loaded.isdisjoint(HEAVY | {"jinja2"})
    assert not [name for name in loaded if name.startswith("mergeline.evaluation.report")]


def test_help_takes_less_than_150_ms_of_cpu_time() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mergeline", "--help"], stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # Measured: 0.09 s, of which the interpreter alone takes 0.02 s. The best of five, as others share the machine.
    assert min(cpu_seconds() for _ in range(5)) < 0.15
