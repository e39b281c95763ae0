"""Merge tiny checkpoints with mergekit and keep its results as the truth our tests compare with.

    python benchmarks/mergekit_goldens.py --mergekit-python PATH --out tests/golden

mergekit (LGPL) runs as a separate process in an environment of its own; none of its code is imported or copied.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save

from benchmarks.golden_cases import INPUTS, SHAPE, GoldenCase, golden_cases
from benchmarks.mergekit_environment import installed_versions
from tests.builders.tiny_checkpoints import make_mistral, mistral_tensors, tensors_sha256

PACKAGES = ("mergekit", "torch", "safetensors", "numpy", "transformers")
OPTIONS = ["--no-copy-tokenizer", "--no-write-model-card", "--random-seed", "0", "--quiet"]

README = """# Golden merges

What mergekit {mergekit} wrote for {count} merges of tiny Mistral-shaped checkpoints, as independent truth for
`tests/merge/test_mergekit_agreement.py`. Only mergekit's results are kept: the checkpoints that went in are made again
from their seeds by `tests/builders/tiny_checkpoints.py`, and the test compares their sha256 with `goldens.json` first.

| | |
|---|---|
| Made by | `python benchmarks/mergekit_goldens.py --mergekit-python PATH --out tests/golden` |
| On | {date} |
| mergekit | {mergekit}, run as `mergekit-yaml RECIPE OUT {options}` |
| Beside it | Python {python}, torch {torch}, safetensors {safetensors}, numpy {numpy}, transformers {transformers} |
| Tensors | mergekit's output tensors, unchanged, one safetensors file per merge |
| Recipes, seeds, digests | `goldens.json` |

mergekit is licensed LGPL-3.0; these files hold numbers it computed from random weights, and none of its code.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mergekit-python", type=Path, required=True, help="Python of an environment with mergekit")
    parser.add_argument("--out", type=Path, required=True, help="directory to write, usually tests/golden")
    arguments = parser.parse_args()
    python: Path = arguments.mergekit_python.absolute()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.safetensors"):
        stale.unlink()
    cases = list(golden_cases())
    with tempfile.TemporaryDirectory() as workspace:
        digests = make_inputs(Path(workspace), cases)
        records = {case.name: merge(python, case, Path(workspace), out) for case in cases}
    inputs = {name: asdict(source) for name, source in INPUTS.items()}
    goldens = {"shape": SHAPE, "inputs": inputs, "inputs_sha256": digests, "cases": records}
    (out / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = {"count": len(cases), "date": today, "options": " ".join(OPTIONS)} | installed_versions(python, PACKAGES)
    (out / "README.md").write_text(README.format(**facts))


def make_inputs(workspace: Path, cases: list[GoldenCase]) -> dict[str, str]:
    """Write every checkpoint the cases read, as ``NAME.DTYPE``, and return their sha256."""
    wanted = sorted({(name, dtype) for case in cases for name, dtype in case.stored.items()})
    digests: dict[str, str] = {}
    for name, dtype in wanted:
        source = INPUTS[name]
        # Related in float32 first, so that a checkpoint is the same model in each dtype it is stored in.
        base = mistral_tensors(INPUTS[source.base].seed, dtype=torch.float32, **SHAPE) if source.base else None
        directory = workspace / f"{name}.{dtype}"
        tensors = make_mistral(directory, source.seed, dtype=getattr(torch, dtype), base=base, **SHAPE)
        digests[directory.name] = tensors_sha256(tensors)
    return digests


def merge(python: Path, case: GoldenCase, workspace: Path, out: Path) -> dict[str, Any]:
    """Run mergekit on one case, store its tensors, and return the case as ``goldens.json`` records it."""
    recipe = with_stored_names(case.recipe, case.stored)
    recipe_path = workspace / f"{case.name}.yaml"
    recipe_path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    directory = workspace / f"{case.name}.merged"
    command = [python.with_name("mergekit-yaml"), recipe_path.name, directory.name]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, *OPTIONS], cwd=workspace, check=True, env=offline)
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(shard)
    (out / f"{case.name}.safetensors").write_bytes(save(tensors))
    config = json.loads((directory / "config.json").read_text())
    print(f"{case.name}: {len(tensors)} tensors", flush=True)
    return {"recipe": recipe, "num_hidden_layers": config["num_hidden_layers"]}


def with_stored_names(value: Any, stored: dict[str, str]) -> Any:
    """Replace input names by the directories they are stored in, relative to the working directory."""
    if isinstance(value, dict):
        return {
            key: f"./{item}.{stored[item]}" if key in ("model", "base_model") else with_stored_names(item, stored)
            for key, item in value.items()
        }
    return [with_stored_names(item, stored) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
