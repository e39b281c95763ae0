"""Every command of docs/evaluation.md, run as it stands on the demonstration models."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import mergeline.evaluation
from mergeline.cli.command_line import main
from mergeline.evaluation.compare import comparison
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions

ROOT = Path(__file__).parents[2]
DEMO_MODELS = ROOT / "deployments" / "local" / "demo_models"
TEXT = (ROOT / "docs" / "evaluation.md").read_text()
RECIPE = (
    "merge_method: slerp\nbase_model: parent-a\nmodels: [{model: parent-a}, {model: parent-b}]\n"
    "parameters: {t: 0.5}\ndtype: float32\n"
)


@dataclass(frozen=True)
class Ran:
    """A command that was run."""

    out: str
    err: str


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that the document's commands name, the merge made by Mergeline."""
    place = tmp_path_factory.mktemp("workplace")
    for name, model in {"parent-a": "compass", "parent-b": "clock", "their-ancestor": "base"}.items():
        shutil.copytree(DEMO_MODELS / model, place / name)
    rows = make_questions(1000, DEMONSTRATION_SEED)
    (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shipped = Path(mergeline.evaluation.__file__).parent / "questions" / "lm_eval_tasks" / "spartqa_train"
    task = (shipped / "spartqa_train.yaml").read_text()
    (place / "my_task.yaml").write_text(task.replace("task: spartqa_train", "task: my_task"))
    shutil.copy(shipped / "preprocess_spartqa.py", place)
    (place / "recipe.yaml").write_text(RECIPE)
    return place


@pytest.fixture
def run(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command line in the workplace; it must succeed."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MERGELINE_HOME", str(workplace / "state"))
    # Models this small are three times slower on two threads.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(command: str) -> Ran:
        capsys.readouterr()
        assert main(shlex.split(command)[1:]) == 0
        return Ran(*capsys.readouterr())

    return run


@pytest.mark.slow
def test_every_command_does_what_the_document_says(workplace: Path, run) -> None:
    compare, other_task, settings, sample = re.findall(r"^mergeline (?:evaluate|sample) .*$", TEXT, re.MULTILINE)
    run("mergeline merge recipe.yaml my-merge --quiet")

    first = run(compare)
    (shown,) = re.findall(r"^```\n(\| Model.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    # The document leaves out the rule below the header.
    assert (
        shown.splitlines() == [line for line in first.out.splitlines() if "|---" not in line][: len(shown.splitlines())]
    )
    page = (workplace / "report.html").read_text()
    assert "merge_method: slerp" in page
    assert "How far apart the sources are" in page
    assert "Question: Where is" in page

    # A second merge of the same parents: they are not asked again.
    shutil.copytree(workplace / "parent-a", workplace / "another-merge", dirs_exist_ok=True)
    config = workplace / "another-merge" / "config.json"
    config.write_text(config.read_text() + "\n")
    again = run(compare.replace("my-merge", "another-merge"))
    assert [line for line in again.err.splitlines() if line.startswith("Evaluating")] == [
        "Evaluating another-merge on spartqa_train (1 of 1)"
    ]
    assert "another-merge against parent-a: no detectable difference (+0.000" in again.out

    alone = run(other_task)
    assert "| my-merge | my_task |" in alone.out
    assert "Note: limit in use: the first 50 questions only" in alone.out

    report = json.loads(run(settings).out)
    assert (
        report["merge"]["settings"] | {"engine": "fast", "dtype": "bfloat16", "batch_size": 8}
        == (report["merge"]["settings"])
    )
    assert report["merge"]["loaded_dtype"] == "bfloat16"
    assert [breakdown["column"] for breakdown in report["breakdowns"]] == ["relation", "family"]
    assert {one["margin"] for one in report["comparisons"]} == {0.05}

    written = run(sample).out
    assert written.startswith("greedy, at most 20 new tokens, seed 0, dtype auto\n\n> Who are you?\n")
    assert [name for name in ("parent-a:", "parent-b:", "my-merge:") if f"\n\n{name}\n" not in written] == []


def test_every_option_verdict_and_flag_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert [option for option in sorted(options) if option not in TEXT] == []
    words = (comparison.BETTER, comparison.WORSE, comparison.NO_DIFFERENCE, comparison.NOT_COMPARABLE)
    assert [word for word in words if f"`{word}`" not in TEXT] == []
    source = (Path(mergeline.evaluation.__file__).parent / "compare" / "flags.py").read_text()
    flags = ("below majority baseline", "single-letter predictor", "limit in use", "evaluated on train split")
    assert [flag for flag in flags if flag not in source or f"`{flag}`" not in TEXT] == []
