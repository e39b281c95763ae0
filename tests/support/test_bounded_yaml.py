"""Small documents that cost much, and values that PyYAML's constructors fail on: one line, exit status 2, at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from mergeline.cli.command_line import main
from mergeline.errors import InputError, PipelineError
from mergeline.pipeline.form import read_form
from mergeline.support.bounded_yaml import MAX_DEPTH, MAX_VALUES
from mergeline.support.text import read_text
from mergeline.support.yaml_document import read_yaml, read_yaml_value

GOOD_RECIPE = "merge_method: linear\nmodels: [{model: a}]\n"


def laughs(first: str, following: str) -> str:
    """Return nine levels, each of which names the one before nine times: 9 ** 8 values in some 400 bytes."""
    repeats = [following.format(", ".join([f"*k{level - 1}"] * 9)) for level in range(1, 9)]
    return "{" + ", ".join(f"k{level}: &k{level} {value}" for level, value in enumerate([first, *repeats])) + "}"


def chain(length: int, depth: int) -> str:
    """Return a mapping of values that are each nested ``depth`` levels and hold the one before at the bottom."""
    links = [
        f"k{link}: &k{link} {'[' * depth}{f'*k{link - 1}' if link else 'x'}{']' * depth}" for link in range(length)
    ]
    return ", ".join(links)


TOO_MUCH = {
    "a value that holds itself": ("{k: &a [*a]}", r"\*a stands inside the value that it repeats"),
    "a key that holds itself": ("{? &a [*a] : x}", r"\*a stands inside the value that it repeats"),
    "a mapping merged into itself": ("&a {<<: *a}", r"\*a stands inside the value that it repeats"),
    "nine levels of nine aliases": (laughs("[x]", "[{}]"), "more than 20,000 values"),
    "nine levels of merged mappings": (laughs("{x: 1}", "{{<<: [{}]}}"), "more than 20,000 values"),
    "a long text repeated": ("{k: &a " + "x" * 50_000 + ", l: [" + ", ".join(["*a"] * 50) + "]}", "more than 20,000"),
    "a long list": ("[" + "x," * 30_000 + "]", "more than 20,000 values"),
    "open brackets": ("[" * 2000, "nested more than 50 levels deep"),
    "open braces": ("{a: " * 2000, "nested more than 50 levels deep"),
    "brackets on lines of their own": ("\n".join(["["] * 2000), "nested more than 50 levels deep"),
    "a chain of deep values": ("{" + chain(20, 40) + "}", "nested more than 50 levels deep"),
    "a long number in base 60": ("{a: 1" + ":59" * 50_000 + "}", "'1:59:59.*cannot be read as int"),
    "a number of 5,000 digits": ("{a: " + "9" * 5000 + "}", "'9999.*cannot be read as int"),
    "a large file": ("{a: " + "x" * 250_000 + "}", "larger than 250 kB"),
    "an impossible day": ("{a: 2020-99-99}", "'2020-99-99' cannot be read as timestamp; quote it if it is text"),
    "no time zone": ("{a: 2001-12-14 21:59:43 -99:99}", "cannot be read as timestamp; quote it if it is text"),
    "no date": ("{a: !!timestamp foo}", "'foo' cannot be read as timestamp"),
    "no bool": ("{a: !!bool foo}", "'foo' cannot be read as bool"),
    "no int": ("{a: !!int foo}", "'foo' cannot be read as int"),
    "an empty int": ("{a: !!int ''}", "'' cannot be read as int"),
    "no float": ("{a: !!float foo}", "'foo' cannot be read as float"),
    "half a character": (r'{a: "\ud800"}', r"'\\ud800' cannot be read as str"),
    "a list as key": ("{? [a] : x}", "not valid YAML: found unhashable key"),
    "a repeated key": ("{a: {x: 1, x: 2}}", r"a\.x is given twice"),
}  # fmt: skip


@pytest.fixture(params=["recipe", "pipeline", "recipe in a pipeline", "--set", "form", "recipe in a form"])
def refuse(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What a user sees of a document that is refused, by each way that a document comes in."""
    way = request.param

    def command(*arguments: str) -> str:
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    def message(document: str) -> str:
        path = tmp_path / "file.yaml"
        if way == "recipe":
            path.write_text(document)
            return command("plan", str(path))
        if way == "pipeline":
            path.write_text(document)
            return command("run", str(path))
        if way == "recipe in a pipeline":
            lines = "\n".join(f"  {line}" for line in document.splitlines())
            path.write_text(f"name: a\nrecipe: |\n{lines}\n  #\n")
            return command("run", str(path))
        if way == "--set":
            path.write_text(f"name: a\nrecipe: |\n  {GOOD_RECIPE.replace(chr(10), chr(10) + '  ')}\n")
            return command("run", str(path), "--set", f"sample={document}")
        form = {"name": "a", "recipe": GOOD_RECIPE, "more": ""} | {"more" if way == "form" else "recipe": document}
        with pytest.raises(InputError) as failure:
            read_form(form)
        assert failure.value.exit_status == 2
        return str(failure.value)

    return message


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_document_that_costs_much_or_means_nothing_is_one_line_at_once(kind: str, refuse) -> None:
    document, sentence = TOO_MUCH[kind]
    before = time.process_time()
    message = refuse(document)
    # CPU time, as others share the machine. The longest, a list of 30,000, takes 0.6 s; the worst took minutes.
    assert time.process_time() - before < 2
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    assert re.search(sentence, message), message


def test_what_is_within_the_limits_is_read_and_aliases_give_equal_values() -> None:
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    values = ", ".join(["x"] * (MAX_VALUES // 2))
    document = read_yaml(f"a: &a {nested}\nb: *a\n<<: {{c: 1}}\nl: [{values}]\nt: {'x' * 5000}\n", "file", InputError)
    assert document.value["a"] == document.value["b"]
    assert (document.value["c"], len(document.value["l"]), len(document.value["t"])) == (1, MAX_VALUES // 2, 5000)
    assert document.place(["b", 0, 0]) == "file:1: b[0][0]"


@pytest.mark.parametrize(("text", "value"), [("[1, a]", [1, "a"]), ("3", 3), ("", None), ("2020-01-02", "2020-01-02")])
def test_a_value_by_itself(text: str, value: object) -> None:
    read = read_yaml_value(text, "--set a", PipelineError)
    assert (read.isoformat() if hasattr(read, "isoformat") else read) == value


def test_only_the_first_of_many_problems_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD_RECIPE + "".join(f"merge_methud{number}: 1\n" for number in range(5000)))
    before = time.process_time()
    assert main(["plan", str(path)]) == 2
    assert time.process_time() - before < 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 51
    assert lines[-1].endswith("4,950 more problems; mend these first.")


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="larger than 250 kB"):
        read_text(Path("/dev/zero"), InputError, "recipe")
