"""The model card, read back by the Hub's own parser."""

import dataclasses
import html
import re

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mergeline.evaluation.results import Answer, Comparison, Evaluation, EvaluationReport, EvaluationSettings, Sample
from mergeline.merge.manifest import Manifest
from mergeline.publish.card import render_card
from mergeline.sources.identity import FileDigest, SourceIdentity
from mergeline.support.markdown import code_block, code_span, escape_markdown

NAME = "mergeline-demo/merged"
RECIPE = """\
models:
  - model: mergeline-demo/compass
  - model: /home/somebody/models/clock
merge_method: slerp
base_model: mergeline-demo/compass
"""


def source(
    label: str, repo_id: str | None = None, commit: str | None = None, declared: str | None = None
) -> SourceIdentity:
    return SourceIdentity(label, repo_id, commit, declared, (FileDigest("model.safetensors", 8, "0" * 64),), "f" * 64)


COMPASS = source("mergeline-demo/compass@v1", "mergeline-demo/compass", "c" * 40, "apache-2.0")
CLOCK = source("/home/somebody/models/clock", declared="mit")


def manifest(*sources: SourceIdentity, notes: tuple[str, ...] = (), links: dict[str, str] | None = None) -> Manifest:
    return Manifest(
        plan_digest="ab" * 32,
        merge_method="slerp",
        recipe={},
        sources=sources or (COMPASS, CLOCK),
        shards=(FileDigest("model.safetensors", 8, "0" * 64),),
        other_files=(),
        parameter_count=89_280,
        notes=notes,
        engine_version="0.1.0",
        numerics_version=1,
        versions={"torch": "2.13.0", "python": "3.11.7"},
        created_at="2026-11-23T12:00:00Z",
        links=links or {},
    )


def evaluated(label: str, accuracy: float, task: str = "spartqa_train") -> Evaluation:
    return Evaluation(
        label=label,
        model_digest="d" * 64,
        settings=EvaluationSettings(task, dataset="/home/somebody/data/train.jsonl"),
        accuracy=accuracy,
        stderr=0.0147,
        task_version="1.0",
        task_hash="e" * 64,
        table="",
        answers=(Answer("1", "1", 0, 0, (0.0, -1.0, -1.0, -1.0)),) * 1000,
        versions={"lm_eval": "0.4.13"},
    )


def compared(reference: str, difference: float, verdict: str) -> Comparison:
    return Comparison("merged", reference, difference, difference - 0.02, difference + 0.02, 254, 12, 4e-74, verdict)


def report(*verdicts: str, task: str = "spartqa_train") -> EvaluationReport:
    return EvaluationReport(
        merge=evaluated("merged", 1.0, task),
        references=(evaluated("base", 0.494, task), evaluated("compass", 0.746, task), evaluated("clock", 0.755, task)),
        comparisons=tuple(
            compared(reference, 0.25, verdict)
            for reference, verdict in zip(("compass", "clock"), verdicts or ("better", "better"), strict=True)
        ),
        majority_accuracy=0.478,
        chance_accuracy=0.25,
        flags=("clock: below majority baseline",),
    )


def rows(card: str) -> dict[str, list[str]]:
    """Every table row by its first cell."""
    lines = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in card.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_the_front_matter_reads_back() -> None:
    links = {"evaluation": f"https://hub.example/{NAME}/resolve/main/eval/spartqa_train.json"}
    data = ModelCard(render_card(manifest(), RECIPE, name=NAME, evaluations=[report()], links=links)).data.to_dict()
    index = data.pop("model-index")
    assert data == {
        "base_model": ["mergeline-demo/compass"],
        "base_model_relation": "merge",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "mergeline", "slerp"],
    }
    assert index == [
        {
            "name": "merged",
            "results": [
                {
                    "task": {"type": "text-generation", "name": "Text Generation"},
                    "dataset": {
                        "name": "spartqa_train (1,000 questions)",
                        "type": "spartqa_train",
                        "split": "train",
                    },
                    "metrics": [{"type": "acc", "value": 1.0, "name": "acc"}],
                    "source": {"name": "lm-eval 0.4.13", "url": links["evaluation"]},
                }
            ],
        }
    ]


def test_base_models_are_hub_ids_each_once() -> None:
    clock = source("mergeline-demo/clock", "mergeline-demo/clock", "d" * 40, "mit")
    data = ModelCard(render_card(manifest(COMPASS, clock, COMPASS), RECIPE, name=NAME)).data
    assert data.base_model == ["mergeline-demo/compass", "mergeline-demo/clock"]
    assert "base_model" not in ModelCard(render_card(manifest(CLOCK), RECIPE, name=NAME)).data.to_dict()


def test_a_dataset_on_the_hub_is_named_as_such() -> None:
    reported = report()
    settings = dataclasses.replace(reported.merge.settings, dataset="mergeline-demo/spartqa-directions")
    reported = dataclasses.replace(reported, merge=dataclasses.replace(reported.merge, settings=settings))
    results = ModelCard(render_card(manifest(), RECIPE, name=NAME, evaluations=[reported])).data.eval_results
    assert results is not None
    assert results[0].dataset_type == "mergeline-demo/spartqa-directions"
    assert results[0].source_url is None


def test_a_licence_without_an_identifier_gets_a_name_and_a_place() -> None:
    llama = source("o/llama", "o/llama", "d" * 40, "llama3.1")
    gemma = source("o/gemma", "o/gemma", "e" * 40, "gemma")
    card = render_card(manifest(llama, gemma), RECIPE, name=NAME)
    data = ModelCard(card).data.to_dict()
    assert (data["license"], data["license_name"], data["license_link"]) == ("other", "multiple", "README.md")
    assert "Built with Llama" in card
    assert "This is Mergeline's policy, not legal advice." in card


def test_sources_show_their_commit_and_licence() -> None:
    undeclared = source("o/quiet", "o/quiet", "d" * 40)
    table = rows(render_card(manifest(COMPASS, CLOCK, undeclared), RECIPE, name=NAME))
    assert table["`mergeline-demo/compass`"] == [f"`{'c' * 40}`", "apache-2.0"]
    assert table["`clock` (local)"][-1] == "mit"
    assert table["`o/quiet`"] == [f"`{'d' * 40}`", "none declared"]


def test_no_path_of_this_machine_is_told() -> None:
    relative = source("models/clock", declared="mit")
    notes = (
        "The tokenizer comes from /home/somebody/models/clock.",
        "models/clock-2 is another; so is C:\\Users\\somebody\\clock; see https://hub.example/a/b.",
        "Half of 1/2 and either/or stay.",
    )
    links = {"run": "0a1b", "store": "sqlite:////home/somebody/mlflow.db", "local": "file:///home/somebody/x"}
    recipe = RECIPE + "tokenizer_source: models/clock\n# see ~/somebody/notes/merge.txt\n"
    card = render_card(manifest(CLOCK, relative, notes=notes, links=links), recipe, name=NAME, evaluations=[report()])
    assert "somebody" not in card
    assert "  - model: clock (local)\n" in card
    assert "tokenizer_source: clock (local)\n" in card
    assert "- The tokenizer comes from clock (local).\n" in card
    assert "- models/clock-2 is another; so is clock (local); see https://hub.example/a/b.\n" in card
    assert "- Half of 1/2 and either/or stay.\n" in card
    assert "- run: `0a1b`\n" in card
    assert "sqlite" not in card


def test_a_local_source_of_one_word_leaves_the_recipe_alone() -> None:
    card = render_card(manifest(source("base", declared="mit")), "base_model: base\n", name=NAME)
    assert "```yaml\nbase_model: base\n```" in card


def test_the_evaluation_shows_parents_baselines_and_verdicts() -> None:
    card = render_card(manifest(), RECIPE, name=NAME, evaluations=[report("better", "no detectable difference")])
    lines = [" ".join(line.split()) for line in card.splitlines()]
    assert "| base | 0.494 | ± 0.0147 | 1,000 |" in lines
    assert "| merged | 1.000 | ± 0.0147 | 1,000 |" in lines
    assert "Always giving the most frequent answer scores 0.478; guessing scores 0.250." in card
    assert "| compass | +0.250 | +0.230 to +0.270 | 254 / 12 | 4e-74 | better |" in lines
    assert "| clock | +0.250 | +0.230 to +0.270 | 254 / 12 | 4e-74 | no detectable difference |" in lines
    assert "- clock: below majority baseline" in card
    assert "uses questions of a train split as a test" in card


@pytest.mark.parametrize("verdict", ["worse", "no detectable difference", "not comparable"])
def test_nothing_is_bold_unless_every_parent_was_beaten(verdict: str) -> None:
    bold = re.compile(r"\*\*[\d.]+\*\*")
    assert bold.findall(render_card(manifest(), RECIPE, name=NAME, evaluations=[report()])) == ["**1.000**"]
    assert not bold.findall(render_card(manifest(), RECIPE, name=NAME, evaluations=[report("better", verdict)]))


def test_another_task_is_not_said_to_use_a_train_split() -> None:
    card = render_card(manifest(), RECIPE, name=NAME, evaluations=[report(task="arc_easy")])
    assert "train split" not in card
    results = ModelCard(card).data.eval_results
    assert results is not None
    assert results[0].dataset_split is None


def test_samples_are_quoted_whatever_they_hold() -> None:
    sample = Sample("merged", "Write code.", "```python\nprint()\n```", 100, 7)
    card = render_card(manifest(), RECIPE, name=NAME, samples=[sample])
    assert "````text\n```python\nprint()\n```\n````" in card
    assert "at most 100 tokens more, greedy, seed 7" in card
    assert "## Samples" not in render_card(manifest(), RECIPE, name=NAME)


def test_it_says_how_to_load_and_rebuild() -> None:
    card = render_card(manifest(), RECIPE, name=NAME)
    assert f'AutoModelForCausalLM.from_pretrained("{NAME}", dtype="auto")' in card
    assert f"mergeline reproduce {NAME}\n" in card
    assert "The local ones have to be at hand." in card
    assert "at hand" not in render_card(manifest(COMPASS), RECIPE, name=NAME)
    assert "`slerp`" in card
    assert "89,280 parameters" in card
    assert f"Plan `{'ab' * 32}`, made 2026-11-23T12:00:00Z with python 3.11.7, torch 2.13.0." in card


HOSTILE = "<img src=x onerror=alert(1)> **bold** [click](javascript:x) | cell `code` <!-- $x$\n# Heading\n- item"
SHOWN = " ".join(HOSTILE.split())


def rendered(card: str) -> tuple[str, str]:
    """The card as HTML and as the text that a reader sees, by a CommonMark parser with tables."""
    page = MarkdownIt("commonmark").enable("table").render(card.split("\n---\n", 1)[1])
    return page, html.unescape(re.sub(r"<[^>]*>", "", page))


def test_text_from_outside_brings_no_markup_of_its_own() -> None:
    sources = source("/models/x", declared=HOSTILE), source("o/a", "o/a", "c" * 40, "mit")
    merge = dataclasses.replace(evaluated("merged", 1.0), task_version=HOSTILE)
    reported = dataclasses.replace(
        report(),
        merge=merge,
        references=(dataclasses.replace(evaluated("a", 0.5), label=HOSTILE),),
        comparisons=(dataclasses.replace(compared("a", 0.5, "better"), reference=HOSTILE),),
        flags=(HOSTILE,),
    )
    sample = Sample(HOSTILE, "```\n<b>prompt</b>", "```\n</code></pre><b>bold</b>", 8, 0)
    links = {HOSTILE: "https://hub.example/a) <b>b</b>", "run": "0a`1b"}
    notes = (HOSTILE, "# Not a heading", "1. Not a list", "- Nor this", "> Nor a quotation", "--- no rule")
    card = render_card(
        manifest(*sources, notes=notes), RECIPE, name=NAME, evaluations=[reported], samples=[sample], links=links
    )
    page, text = rendered(card)
    plain, _ = rendered(render_card(manifest(*sources), RECIPE, name=NAME, evaluations=[report()], samples=[sample]))
    assert set(re.findall(r"<(\w+)", page)) <= set(re.findall(r"<(\w+)", plain)) | {"a", "ul", "li"}
    assert page.count("<h1>") == 1
    assert page.count("<strong>") == 1
    assert re.findall(r'href="([^"]*)"', page) == ["https://hub.example/a%29%20%3Cb%3Eb%3C/b%3E"]
    # Licence, version, both tables, flag, sample's label, note, title of the link.
    assert text.count(SHOWN) == 8
    assert all(note in text for note in notes[1:])


@given(st.text(st.sampled_from("ab1 .)(_*`~#+-=>|<!&;[]\\\"'/:\n$"), max_size=30))
@example("&lt;")
@example("__init__ a_b _c_")
@example("1) x")
def test_escaped_text_reads_as_it_was_written(text: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = parser.render(f"- {escape_markdown(text)}\n")
    inside = re.fullmatch(r"<ul>\n<li>(.*)</li>\n</ul>\n", page, re.DOTALL)
    assert inside is not None
    assert html.unescape(inside[1]) == " ".join(text.split())
    assert "<" not in inside[1]


@given(st.text(st.sampled_from("ab `\n"), min_size=1, max_size=20).filter(str.strip))
def test_code_reads_as_it_was_written(text: str) -> None:
    page = MarkdownIt("commonmark").render(f"x {code_span(text)} y")
    assert html.unescape(page) == f"<p>x <code>{' '.join(text.split())}</code> y</p>\n"
    block = MarkdownIt("commonmark").render(code_block(text))
    assert html.unescape(block) == f'<pre><code class="language-text">{text}\n</code></pre>\n'
