"""The wheel alone, away from the checkout: it plans and merges, and says what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import mergeline
from tests.builders.tiny_checkpoints import make_mistral

ROOT = Path(__file__).parents[2]
RECIPE = "merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\nparameters:\n  t: 0.5\n"
PIPELINE = "name: tiny\nrecipe: recipe.yaml\nevaluate: {tasks: []}\n"


@dataclass(frozen=True)
class Installation:
    """A directory that holds the wheel's content, and one to work in."""

    wheel: Path
    target: Path
    workplace: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # -S: site-packages may hold a link to the checkout, which only the site module follows; -P: nor is the
        # working directory searched. The dependencies are found as plain directories.
        paths = [str(self.target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        return subprocess.run(
            [sys.executable, "-S", "-P", *arguments],
            cwd=self.workplace,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
            capture_output=True,
            text=True,
            check=False,
        )

    def mergeline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "mergeline", *arguments)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", str(directory / "target"), str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    workplace = directory / "workplace"
    for seed, name in enumerate("ab"):
        make_mistral(workplace / name, seed, dtype=torch.float32)
    (workplace / "recipe.yaml").write_text(RECIPE)
    (workplace / "pipeline.yaml").write_text(PIPELINE)
    return Installation(wheel, directory / "target", workplace)


def test_the_wheel_holds_the_engine_and_nothing_else(installation: Installation) -> None:
    names = zipfile.ZipFile(installation.wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"mergeline", installation.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    in_checkout = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mergeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("mergeline/")} == in_checkout
    assert "mergeline/evaluation/questions/lm_eval_tasks/spartqa_train/spartqa_train.yaml" in names


def test_the_wheel_runs_by_itself(installation: Installation) -> None:
    done = installation.python("-c", "import mergeline; print(mergeline.__file__)")
    assert done.stdout.strip() == str(installation.target / "mergeline" / "__init__.py")
    done = installation.python("-c", "import flows")
    assert "No module named 'flows'" in done.stderr


def test_the_wheel_plans_and_merges(installation: Installation) -> None:
    planned = installation.mergeline("plan", "recipe.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "slerp of 2 models" in planned.stdout
    merged = installation.mergeline("merge", "recipe.yaml", "out", "--quiet")
    assert merged.returncode == 0, merged.stderr
    assert (installation.workplace / "out" / "model.safetensors").is_file()
    verified = installation.mergeline("verify", "out")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("arguments", [("run", "pipeline.yaml"), ("up",)], ids=lambda arguments: arguments[0])
def test_the_wheel_says_that_pipelines_need_a_checkout(installation: Installation, arguments: tuple[str, ...]) -> None:
    done = installation.mergeline(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "pipelines run from a checkout of Mergeline (`make setup`), the wheel alone plans and merges." in done.stderr
    assert not (installation.workplace / ".mergeline").exists()


def test_the_wheel_installs_a_command(installation: Installation) -> None:
    done = installation.python(str(installation.target / "bin" / "mergeline"), "--version")
    assert (done.returncode, done.stdout) == (0, f"mergeline {mergeline.__version__}\n")
