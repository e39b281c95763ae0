"""What a merge wrote, checked again: digests against the manifest, tensors against the plan, loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mergeline.checkpoint import open_checkpoint
from mergeline.errors import CheckpointError, OutputError, VerificationError
from mergeline.lineage import MANIFEST_NAME, Manifest, file_sha256
from mergeline.workspace import PLAN_NAME, read_manifest, read_plan


@dataclass(frozen=True)
class Verification:
    """What was found to be as it should."""

    plan_digest: str
    tensor_count: int
    parameter_count: int
    file_count: int
    nbytes: int
    """Bytes hashed."""
    is_loadable: bool | None
    """Whether transformers' own skeleton of the model takes exactly these tensors; None if not tried."""


def verify_directory(directory: Path, *, try_loading: bool = False) -> Verification:
    """Hash every file of a merge and compare its tensors with the plan that travels with it.

    Raises:
        OutputError: If the directory holds no finished merge.
        VerificationError: With one line per difference.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise OutputError(f"{directory}: has no {MANIFEST_NAME}; it is no merge of this tool, or not a finished one.")
    problems = _changed_files(directory, manifest)
    tensor_count = 0
    if not problems:
        problems, tensor_count = _differing_tensors(directory)
    if problems:
        raise VerificationError("\n".join(f"{directory}: {problem}" for problem in problems))
    if try_loading:
        check_loads(directory)
    files = manifest.shards + manifest.other_files
    return Verification(
        manifest.plan_digest, tensor_count, manifest.parameter_count, len(files), sum(file.nbytes for file in files),
        True if try_loading else None,
    )  # fmt: skip


def _changed_files(directory: Path, manifest: Manifest) -> list[str]:
    problems: list[str] = []
    for record in manifest.shards + manifest.other_files:
        path = directory / record.name
        if not path.is_file():
            problems.append(f"{record.name} is missing.")
        elif path.stat().st_size != record.nbytes:
            problems.append(f"{record.name} has {path.stat().st_size:,} bytes, the manifest says {record.nbytes:,}.")
        elif file_sha256(path) != record.sha256:
            problems.append(f"{record.name} has changed since it was written (sha256 differs).")
    return problems


def _differing_tensors(directory: Path) -> tuple[list[str], int]:
    """Compare what the files hold with what was planned."""
    plan = read_plan(directory / PLAN_NAME)
    try:
        found = open_checkpoint(str(directory)).tensors
    except CheckpointError as problem:
        return [str(problem)], 0
    planned = {tensor.name: tensor for shard in plan.shards for tensor in shard.tensors}
    problems = [f"tensor {name!r} was planned and is missing." for name in planned.keys() - found.keys()]
    problems += [f"tensor {name!r} was not planned." for name in found.keys() - planned.keys()]
    for name in planned.keys() & found.keys():
        expected, actual = planned[name], found[name]
        if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
            problems.append(
                f"tensor {name!r} is {actual.dtype} {list(actual.shape)}, planned was {expected.dtype} "
                f"{list(expected.shape)}."
            )
    return sorted(problems), len(found)


def check_loads(directory: Path) -> None:
    """Compare the directory's tensors with the skeleton transformers builds from its config; no weight is loaded.

    Raises:
        VerificationError: If transformers does not know the architecture, or would miss or ignore tensors.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as problem:
        raise VerificationError(f"{directory}: transformers cannot build this model: {problem}") from None
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: spec.shape for name, spec in open_checkpoint(str(directory)).tensors.items()}
    problems = [f"lacks {name!r}" for name in wanted.keys() - found.keys() - tied]
    problems += [f"has {name!r}, which the model ignores" for name in found.keys() - wanted.keys()]
    problems += [
        f"has {name!r} in shape {list(found[name])}, the model wants {list(wanted[name])}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    if problems:
        raise VerificationError("\n".join(f"{directory}: {problem}." for problem in sorted(problems)))
