"""A small repository on the local Hub, put there by our own client."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from mergeline.errors import MergelineError
from mergeline.sources.hub import Hub, Upload

REPOSITORY = "mergeline/model"


WEIGHTS = os.urandom(400_000)


FILES = {
    "README.md": b"---\nlicense: other\nlicense_name: sea-licence\n---\nA model.\n",
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "extra/more.safetensors": b"more",
}


def publish(hub: Hub, files: Mapping[str, bytes], repo_id: str = REPOSITORY, *, is_private: bool = False) -> str:
    hub.create_repository(repo_id, is_private=is_private)
    uploads = [Upload(path, content, hashlib.sha256(content).hexdigest()) for path, content in files.items()]
    parent = hub.resolve(repo_id).commit
    commit = hub.commit(hub.stage(repo_id, uploads), parent=parent, title="Add files", description="")
    assert commit is not None
    return commit


def stored(local_hub: LocalHub, content: bytes) -> Path:
    """Where the server keeps a large file."""
    (path,) = local_hub.root.rglob(hashlib.sha256(content).hexdigest())
    return path


def only_line(error: MergelineError) -> str:
    text = str(error)
    assert "\n" not in text
    assert LOCAL_TOKEN not in text
    return text
