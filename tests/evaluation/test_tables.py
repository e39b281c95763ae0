from dataclasses import replace
from functools import partial

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.report.tables import comparison_line, report_text, results_table, summary_table

compare = partial(comparison.compare, margin=0.02)
compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)


def test_results_table_has_the_shape_of_lm_evals(made_up):
    parent = made_up("OpenPipe/mistral-ft-optimized-1218", [0] * 1000, [0] * 316 + [1] * 684)
    merge = made_up("merge", [0] * 1000, [0] * 317 + [1] * 683)
    assert results_table([parent, merge]).splitlines() == [
        "| Model                              | Task          | Version | Filter | n-shot | Metric | Value |  Stderr "
        "|  95 % interval |",
        "|------------------------------------|---------------|--------:|--------|-------:|--------|------:|--------:"
        "|---------------:|",
        "| OpenPipe/mistral-ft-optimized-1218 | spartqa_train |       1 | none   |      0 | acc    | 0.316 | ±0.0147 "
        "| 0.288 to 0.345 |",
        "| merge                              | spartqa_train |       1 | none   |      0 | acc    | 0.317 | ±0.0147 "
        "| 0.289 to 0.346 |",
    ]


def test_a_label_cannot_break_the_table(made_up):
    assert "a\\|b" in results_table([made_up("a|b", [0], [0])])


def test_comparison_lines_carry_the_verdict(made_up):
    merge = made_up("merge", [0] * 40, [0] * 40)
    parent = made_up("parent", [0] * 40, [0] * 20 + [1] * 20)
    (comparison,) = compare(merge, [parent])
    line = comparison_line(comparison)
    assert line.startswith("merge against parent: better (+0.500, 95 % interval +0.3")
    assert line.endswith("; 20 won, 0 lost, p = 1.9e-06)")
    (comparison,) = compare(merge, [made_up("parent", [0] * 40, [0] * 40, task_hash="other")])
    assert comparison_line(comparison) == "merge against parent: not comparable (other questions or prompts)"
    (comparison,) = compare(merge, [made_up("parent", [0] * 40, [0] * 40, batch_size=8)])
    assert comparison_line(comparison) == "merge against parent: not comparable (batch_size 32 against 8)"


def test_no_difference_says_what_could_have_been_found(made_up):
    merge = made_up("merge", [0] * 400, [0] * 399 + [1])
    (comparison,) = compare(merge, [made_up("parent", [0] * 400, [1] + [0] * 399)])
    assert comparison_line(comparison).endswith(
        "1 won, 1 lost, p = 1); not worse by more than 0.02; 0.015 could have been found"
    )


def test_p_values_by_cluster_stand_beside_the_others(made_up):
    clusters = [str(number // 4) for number in range(40)]
    merge = made_up("merge", [0] * 40, [0] * 40, clusters)
    (comparison,) = compare(merge, [made_up("parent", [0] * 40, [0] * 8 + [1] * 32, clusters)])
    # Eight clusters of four, all won: 2 / 2^8.
    assert comparison.clustered_p_value == 2 / 2**8
    assert "32 won, 0 lost, p = 4.7e-10, by cluster 0.0078)" in comparison_line(comparison)


def test_report_text_counts_clusters_only_where_there_are_any(made_up):
    alone = compare_with_parents(made_up("model", [0, 1], [0, 1]), [])
    assert report_text(alone).split("\n\n")[1] == "Chance 0.250, majority answer 0.500; 2 questions."
    shared = compare_with_parents(made_up("model", [0, 1], [0, 1], clusters=["story", "story"]), [])
    assert report_text(shared).split("\n\n")[1].endswith("2 questions in 1 clusters.")


def test_report_text_lists_comparisons_then_flags(made_up):
    merge = made_up("merge", [0, 1], [0, 1], split="train")
    text = report_text(compare_with_parents(merge, [made_up("parent", [0, 1], [1, 1], split="train")]))
    comparison, flag, note = text.split("\n\n")[2].splitlines()
    assert comparison.startswith("- merge against parent: no detectable difference (+0.500")
    assert flag == "- Note: parent: single-letter predictor (B on 2 of 2)"
    assert note == "- Note: evaluated on train split"


def test_report_text_shows_letters_breakdowns_and_lm_evals_own_tables(made_up):
    columns = [{"relation": "left"}, {"relation": "right"}] * 10
    merge = replace(made_up("merge", [0, 1] * 10, [0, 0] * 10, columns=columns), table="|Tasks|\n|-----|")
    text = report_text(compare_with_parents(merge, []))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| merge | ±0.1147 | +0.000 | 0.325 | 0.667 | 0.025 | 20/0/0/0 |" in lines
    assert "| right answers | | | | | | 10/10/0/0 |" in lines
    assert "| left | 10 | 1.000 (0.72 to 1.00) |" in lines
    assert text.endswith("As lm-eval printed it:\n\nmerge:\n\n|Tasks|\n|-----|")


def test_a_table_says_when_nothing_is_known_of_the_clustered_error(made_up):
    model = made_up("model", [0, 1], [0, 1], clusters=["story", "story"])
    assert "| model         | unknown          |" in summary_table(compare_with_parents(model, []).summaries)
