"""What the documents say against what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mergeline.cli.command_line import main
from mergeline.methods import METHODS
from mergeline.pipeline.language import Pipeline, load_pipeline
from mergeline.recipe.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main(["--help"])
    return set(re.findall(r"^    (\w+)(?= |$)", capsys.readouterr().out, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_written_exists(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = set(re.findall(r"(?:^|`)mergeline (\w+)", document.read_text(), re.MULTILINE))
    assert written <= commands(capsys)


def test_every_command_is_in_the_readme_or_the_help_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text()
    assert {name for name in commands(capsys) if f"mergeline {name}" not in text} == {"schema"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_make_target_exists(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)`", text):
        assert f"\n{target}:" in makefile, target


def test_every_method_and_parameter_is_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    for method in METHODS.values():
        assert f"`{method.name}`" in text
        for parameter in method.parameters:
            assert f"`{parameter.name}`" in text


def test_every_key_of_recipe_and_pipeline_is_documented() -> None:
    recipes, pipelines = ((ROOT / "docs" / name).read_text() for name in ("recipes.md", "pipelines.md"))
    assert [key for key in Recipe.model_fields if f"`{key}`" not in recipes] == []
    for name, field in Pipeline.model_fields.items():
        assert f"{name}:" in pipelines
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"{key}" in pipelines, f"{name}.{key}"


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs" / "recipes.md"], ids=lambda path: path.name)
def test_every_recipe_shown_is_read(document: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL):
        if "merge_method" in block:
            read_recipe(block)


def test_pipeline_shown_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "pipelines.md").read_text(), re.DOTALL)
    shown = yaml.safe_load(block) | {"recipe": (ROOT / "configs/merges/demo-slerp.yaml").read_text()}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(shown))
    assert load_pipeline(tmp_path / "p.yaml").settings.name == "my-merge"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "pipelines").glob("*.yaml")), ids=lambda path: path.name)
def test_every_pipeline_we_ship_loads_and_begins_with_its_command(path: Path) -> None:
    load_pipeline(path)
    assert path.read_text().startswith(f"# mergeline run {path.relative_to(ROOT)}\n")
