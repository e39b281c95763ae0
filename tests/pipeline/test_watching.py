"""When a source counts as moved, and that a look that failed has seen nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.local.demo import TOKEN
from deployments.loopback_hub import LocalHub
from mergeline.errors import OutputError
from mergeline.pipeline.language import LoadedPipeline, load_pipeline
from mergeline.pipeline.watching import look, moving_sources
from mergeline.sources.hub import Hub

RECIPE = """\
merge_method: linear
models:
  - model: owner/moving
    parameters: {{weight: 0.5}}
  - model: owner/branch@stable
    parameters: {{weight: 0.3}}
  - model: owner/pinned@{commit}
    parameters: {{weight: 0.1}}
  - model: {directory}
    parameters: {{weight: 0.1}}
"""


class Sources:
    """Repositories on a Hub of this test."""

    def __init__(self, endpoint: str) -> None:
        self.api = HfApi(endpoint=endpoint, token=TOKEN)
        for name in ("moving", "branch"):
            self.api.create_repo(f"owner/{name}")
        self.api.create_branch("owner/branch", branch="stable")

    def commit(self, name: str, content: str, branch: str = "main") -> str:
        """Add a commit and return it."""
        return self.api.upload_file(
            path_or_fileobj=content.encode(), path_in_repo="NOTES.md", repo_id=f"owner/{name}", revision=branch
        ).oid


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    with LocalHub(tmp_path / "hub", tokens={TOKEN: "owner"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MERGELINE_HOME", str(tmp_path / "state"))
        yield Sources(hub.endpoint)


@pytest.fixture
def pipeline(tmp_path: Path) -> LoadedPipeline:
    (tmp_path / "local").mkdir()
    text = RECIPE.format(commit="a" * 40, directory=tmp_path / "local")
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "pipeline.yaml").write_text("name: watched\nrecipe: recipe.yaml\nevaluate: {tasks: []}\n")
    return load_pipeline(tmp_path / "pipeline.yaml")


def moved(pipeline: LoadedPipeline) -> tuple[str, ...]:
    with look(pipeline, Hub()) as found:
        return found.moved


def test_only_branches_on_the_hub_can_move(pipeline: LoadedPipeline) -> None:
    assert moving_sources(pipeline) == ("owner/moving", "owner/branch@stable")


def test_a_commit_is_new_once(sources: Sources, pipeline: LoadedPipeline) -> None:
    assert moved(pipeline) == ()
    sources.commit("branch", "of no branch that is watched")
    assert moved(pipeline) == ()
    commit = sources.commit("moving", "new")
    with look(pipeline, Hub()) as found:
        assert (found.moved, found.commits["owner/moving"]) == (("owner/moving",), commit)
    assert moved(pipeline) == ()
    sources.commit("branch", "new", "stable")
    sources.commit("moving", "newer")
    assert moved(pipeline) == ("owner/moving", "owner/branch@stable")


def test_a_look_that_failed_is_done_again_under_the_same_key(sources: Sources, pipeline: LoadedPipeline) -> None:
    assert moved(pipeline) == ()
    sources.commit("moving", "new")
    keys: list[str] = []

    def fail() -> None:
        with look(pipeline, Hub()) as found:
            keys.append(found.key)
            raise ConnectionError("Prefect did not answer")

    with pytest.raises(ConnectionError):
        fail()
    with look(pipeline, Hub()) as found:
        assert found.moved == ("owner/moving",)
        assert [found.key] == keys


def test_two_do_not_look_at_once(sources: Sources, pipeline: LoadedPipeline) -> None:
    with look(pipeline, Hub()), pytest.raises(OutputError, match="another process is watching watched"):
        moved(pipeline)
