"""What a merge wrote, checked again: digests against the manifest, tensors against the plan, loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mergeline.errors import CheckpointError, OutputError, VerificationError
from mergeline.merge.finished_merge import read_finished_merge
from mergeline.merge.manifest import MANIFEST_NAME, Manifest, read_manifest
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import PLAN_NAME, read_plan
from mergeline.sources.checkpoint import Checkpoint, open_checkpoint
from mergeline.sources.hub import Hub
from mergeline.support.digests import file_sha256


@dataclass(frozen=True)
class Verification:
    """What was found to be as it should."""

    plan_digest: str
    tensor_count: int
    parameter_count: int
    file_count: int
    nbytes: int
    """Bytes hashed, by this machine or by the Hub."""
    is_loadable: bool | None
    """Whether transformers' own skeleton of the model takes exactly these tensors; None if not tried."""


@dataclass(frozen=True)
class _Found:
    """One file as it is now."""

    nbytes: int
    sha256: Callable[[], str]
    """Hashes the file only when its size is right."""


def verify_model(model: str, hub: Hub | None = None, *, try_loading: bool = False) -> Verification:
    """Check a merge wherever it is; of a Hub repository no weight is moved, the Hub's own sha256 of it is compared.

    Args:
        model: Directory or Hub id, with an optional ``@revision``.
        hub: Where Hub ids are looked up; the environment's Hub by default.
        try_loading: Also ask transformers whether the tensors fit the config.

    Raises:
        InputError: If it is no finished merge.
        VerificationError: With one line per difference.
    """
    directory, hub = Path(model).expanduser(), hub or Hub()
    if directory.is_dir():
        return verify_directory(directory, try_loading=try_loading)
    merge = read_finished_merge(model, hub)
    repository = merge.checkpoint.repository
    assert repository is not None
    files = {file.path: file for file in repository.files}

    def find(name: str) -> _Found | None:
        file = files.get(name)
        if file is None:
            return None
        # Small files are kept in git, without a sha256.
        return _Found(file.nbytes, lambda: file.sha256 or sha256(hub.read_file(repository, name)).hexdigest())

    _require_unchanged(model, merge.manifest, find)
    _require_planned(model, merge.plan, merge.checkpoint)
    if try_loading:
        check_loads(hub.download(repository, merge.checkpoint.auxiliary_files), merge.checkpoint)
    return _verification(merge.manifest, merge.plan, try_loading)


def verify_directory(directory: Path, *, try_loading: bool = False) -> Verification:
    """Hash every file of a merge and compare its tensors with the plan that travels with it.

    Raises:
        OutputError: If the directory holds no finished merge.
        VerificationError: With one line per difference.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise OutputError(f"{directory}: has no {MANIFEST_NAME}; it is no merge of this tool, or not a finished one.")

    def find(name: str) -> _Found | None:
        path = directory / name
        return _Found(path.stat().st_size, lambda: file_sha256(path)) if path.is_file() else None

    _require_unchanged(str(directory), manifest, find)
    plan = read_plan(directory / PLAN_NAME)
    try:
        checkpoint = open_checkpoint(str(directory))
    except CheckpointError as problem:
        raise VerificationError(f"{directory}: {problem}") from None
    _require_planned(str(directory), plan, checkpoint)
    if try_loading:
        check_loads(directory, checkpoint)
    return _verification(manifest, plan, try_loading)


def _verification(manifest: Manifest, plan: MergePlan, has_loaded: bool) -> Verification:
    files = manifest.shards + manifest.other_files
    return Verification(
        manifest.plan_digest, plan.tensor_count, manifest.parameter_count, len(files),
        sum(file.nbytes for file in files), True if has_loaded else None,
    )  # fmt: skip


def _require_unchanged(place: str, manifest: Manifest, find: Callable[[str], _Found | None]) -> None:
    problems: list[str] = []
    for record in manifest.shards + manifest.other_files:
        found = find(record.name)
        if found is None:
            problems.append(f"{record.name} is missing.")
        elif found.nbytes != record.nbytes:
            problems.append(f"{record.name} has {found.nbytes:,} bytes, the manifest says {record.nbytes:,}.")
        elif found.sha256() != record.sha256:
            problems.append(f"{record.name} has changed since it was written (sha256 differs).")
    _raise(place, problems)


def _require_planned(place: str, plan: MergePlan, checkpoint: Checkpoint) -> None:
    """Compare what the files hold with what was planned."""
    found = checkpoint.tensors
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
    _raise(place, sorted(problems))


def _raise(place: str, problems: list[str]) -> None:
    if problems:
        raise VerificationError("\n".join(f"{place}: {problem}" for problem in problems))


def check_loads(directory: Path, checkpoint: Checkpoint) -> None:
    """Compare a checkpoint's tensors with the skeleton transformers builds from its config; no weight is loaded.

    Args:
        directory: Holds config.json.
        checkpoint: Its tensors, as their headers describe them.

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
        raise VerificationError(f"{checkpoint.label}: transformers cannot build this model: {problem}") from None
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: spec.shape for name, spec in checkpoint.tensors.items()}
    problems = [f"lacks {name!r}" for name in wanted.keys() - found.keys() - tied]
    problems += [f"has {name!r}, which the model ignores" for name in found.keys() - wanted.keys()]
    problems += [
        f"has {name!r} in shape {list(found[name])}, the model wants {list(wanted[name])}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    _raise(checkpoint.label, [f"{problem}." for problem in sorted(problems)])
