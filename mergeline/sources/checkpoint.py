"""A checkpoint, local or on the Hub, as its config and safetensors headers describe it; no weight is read here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mergeline.errors import CheckpointError
from mergeline.sources.hub import Hub, PinnedRepository
from mergeline.sources.identity import FileDigest, SourceIdentity
from mergeline.sources.safetensors_header import TensorSpec, add_tensors, read_header
from mergeline.support.digests import digest

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_FIRST_RANGE_BYTES = 100_000
"""Contains the whole header of most shards."""
_MAX_SMALL_FILE_BYTES = 256_000_000
"""The largest tokenizers are some 35 MB."""
_SHARD_NAME = re.compile(r"^[A-Za-z0-9][\w.\-]*\.safetensors$")
_AUXILIARY = re.compile(
    r"^(?:config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab|chat_template|preprocessor_config"
    r"|processor_config)\.json$|\.(?:model|tiktoken|jinja)$|^(?:merges|vocab)\.txt$"
)


@dataclass(frozen=True)
class Checkpoint:
    """A model's config and tensors, pinned by commit and digests, so that a merge reads what was planned."""

    identity: SourceIdentity
    """Without any local path."""
    config: dict[str, Any]
    """Content of config.json."""
    tensors: Mapping[str, TensorSpec]
    """Name -> tensor."""
    auxiliary_files: tuple[str, ...]
    """config, tokenizer and generation files that make the weights a model."""
    read_small_file: Callable[[str], bytes] = field(repr=False, compare=False)
    """Returns the content of one of the auxiliary files."""
    directory: Path | None = None
    """Local directory of the files; None if they are on the Hub."""
    repository: PinnedRepository | None = None
    """The pinned Hub repository; None for a local directory."""

    @property
    def label(self) -> str:
        return self.identity.label

    @property
    def weight_nbytes(self) -> int:
        return sum(file.nbytes for file in self.identity.files)


def open_checkpoint(reference: str, hub: Hub | None = None) -> Checkpoint:
    """Read a checkpoint's headers and config.

    Args:
        reference: A local directory, or a Hub id with an optional ``@revision``.
        hub: Where Hub ids are looked up; the environment's Hub by default.

    Raises:
        CheckpointError: If it is not a model directory, or its files are malformed or unsupported.
        RepositoryError: If the Hub repository or revision cannot be read.
    """
    path = Path(reference).expanduser()
    try:
        if path.is_dir():
            return _open_local(reference, path)
        is_file = path.exists()
    except OSError as problem:
        raise CheckpointError(f"{reference[:80]}: cannot be looked up: {problem.strerror}; check the name.") from None
    if is_file:
        raise CheckpointError(f"{reference}: is a file; give the directory that holds config.json and *.safetensors.")
    looks_local = reference.startswith((".", "/", "~")) or reference.count("/") > 1
    if looks_local or reference.startswith("@"):
        raise CheckpointError(
            f"{reference}: no such directory (looked in {Path.cwd()}); "
            "give a directory holding config.json and *.safetensors, or a Hub id such as `owner/name`."
        )
    repo_id, _, revision = reference.partition("@")
    hub = hub or Hub()
    return _open_remote(reference, hub, hub.resolve(repo_id, revision or None))


def fetch(checkpoint: Checkpoint, hub: Hub) -> Path:
    """Return the local directory of a checkpoint's files, after downloading those of a Hub repository."""
    if checkpoint.directory is not None:
        return checkpoint.directory
    assert checkpoint.repository is not None
    return hub.download(
        checkpoint.repository, [*(file.name for file in checkpoint.identity.files), *checkpoint.auxiliary_files]
    )


def _open_local(reference: str, directory: Path) -> Checkpoint:
    names = sorted(path.name for path in directory.iterdir() if path.is_file())

    def read_small_file(name: str) -> bytes:
        path = directory / name
        if path.stat().st_size > _MAX_SMALL_FILE_BYTES:
            raise CheckpointError(f"{reference}: {name} is larger than {_MAX_SMALL_FILE_BYTES // 10**6} MB.")
        return path.read_bytes()

    files = _weight_files(reference, names, read_small_file)
    tensors: dict[str, TensorSpec] = {}
    identities: list[object] = []
    records: list[FileDigest] = []
    for name in files:
        path = directory / name
        nbytes = path.stat().st_size
        with path.open("rb") as file:
            header = read_header(f"{reference}/{name}", nbytes, file.read)
        add_tensors(tensors, reference, name, nbytes, header)
        records.append(FileDigest(name, nbytes, None))
        identities.append([name, nbytes, digest(header.decode()), path.stat().st_mtime_ns])
    for path in (directory / name for name in names if _AUXILIARY.search(name)):
        identities.append([path.name, path.stat().st_size, path.stat().st_mtime_ns])
    record = SourceIdentity(reference, None, None, _declared_licence(names, read_small_file), tuple(records),
                          digest(identities))  # fmt: skip
    return _checkpoint(reference, names, record, tensors, read_small_file, directory, None)


def _open_remote(reference: str, hub: Hub, repository: PinnedRepository) -> Checkpoint:
    sizes = {file.path: file.nbytes for file in repository.files}
    names = [name for name in sizes if "/" not in name]

    def read_small_file(name: str) -> bytes:
        return hub.read_file(repository, name)

    files = _weight_files(reference, names, read_small_file)
    tensors: dict[str, TensorSpec] = {}
    for name in files:
        header = read_header(f"{reference}/{name}", sizes[name], _range_reader(hub, repository, name, sizes[name]))
        add_tensors(tensors, reference, name, sizes[name], header)
    hashes = {file.path: file.sha256 for file in repository.files}
    records = tuple(FileDigest(name, sizes[name], hashes[name]) for name in files)
    fingerprint = digest([repository.repo_id, repository.commit, [[r.name, r.nbytes, r.sha256] for r in records]])
    record = SourceIdentity(reference, repository.repo_id, repository.commit, repository.license, records, fingerprint)
    return _checkpoint(reference, names, record, tensors, read_small_file, None, repository)


def _range_reader(hub: Hub, repository: PinnedRepository, name: str, nbytes: int) -> Callable[[int], bytes]:
    """Return a function that reads a remote file sequentially; most headers take one request."""
    buffer = hub.read_range(repository, name, 0, min(_FIRST_RANGE_BYTES, nbytes))
    position = 0

    def read(count: int) -> bytes:
        nonlocal buffer, position
        start, position = position, min(position + count, nbytes)
        if position > len(buffer):
            buffer += hub.read_range(repository, name, len(buffer), position)
        return buffer[start:position]

    return read


def _checkpoint(
    reference: str, names: list[str], record: SourceIdentity, tensors: dict[str, TensorSpec],
    read_small_file: Callable[[str], bytes], directory: Path | None, repository: PinnedRepository | None,
) -> Checkpoint:  # fmt: skip
    if "config.json" not in names:
        raise CheckpointError(f"{reference}: config.json is missing; a checkpoint needs it beside its weights.")
    config = _read_json(reference, "config.json", read_small_file)
    auxiliary = tuple(sorted(name for name in names if _AUXILIARY.search(name)))
    return Checkpoint(record, config, tensors, auxiliary, read_small_file, directory, repository)


def _weight_files(reference: str, names: list[str], read_small_file: Callable[[str], bytes]) -> list[str]:
    """Return the weight files that the index names, or the single one without an index."""
    if INDEX_NAME in names:
        weight_map = _read_json(reference, INDEX_NAME, read_small_file).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{reference}: {INDEX_NAME} has no `weight_map`; fetch the checkpoint again.")
        files = sorted({str(name) for name in cast("dict[str, Any]", weight_map).values()})
        for name in files:
            # transformers would follow `../`; a checkpoint may only name files of its own.
            if not _SHARD_NAME.match(name) or PurePosixPath(name).name != name:
                raise CheckpointError(f"{reference}: {INDEX_NAME} names {name!r}, which is no file of this checkpoint.")
            if name not in names:
                raise CheckpointError(f"{reference}: {INDEX_NAME} names {name}, which is missing; fetch it again.")
        return files
    if SINGLE_NAME in names:
        return [SINGLE_NAME]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise CheckpointError(
            f"{reference}: only pickled weights were found; convert them to safetensors first "
            "(`AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`)."
        )
    raise CheckpointError(f"{reference}: neither {INDEX_NAME} nor {SINGLE_NAME} was found; is it a model directory?")


def _read_json(reference: str, name: str, read_small_file: Callable[[str], bytes]) -> dict[str, Any]:
    try:
        value: Any = json.loads(read_small_file(name))
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{reference}: {name} is not valid JSON ({problem}).") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{reference}: {name} should hold a JSON object, found {type(value).__name__}.")
    return cast("dict[str, Any]", value)


def _declared_licence(names: list[str], read_small_file: Callable[[str], bytes]) -> str | None:
    """Return the ``license`` of a local model card's front matter."""
    if "README.md" not in names:
        return None
    match = re.match(rb"\s*---\n(?:.*?\n)?license:\s*([^\s#]+)", read_small_file("README.md"), re.DOTALL)
    return match[1].decode(errors="replace").strip("\"'") if match else None
