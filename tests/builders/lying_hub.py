"""A Hub that lies, and another origin that keeps what it is sent."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub
from mergeline.errors import HubError, MergelineError
from mergeline.sources.hub import Hub, Upload

REPOSITORY = "mergeline/model"


CONFIG = b'{"model_type": "llama"}'


WEIGHTS = os.urandom(300_000)


FILES = {"config.json": CONFIG, "extra/notes.json": b"{}", "model.safetensors": WEIGHTS}


SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass
class Stranger:
    """Another origin that takes any request, and keeps what it was told."""

    url: str
    heard: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)

    def assert_asked_without_token(self, *methods: str) -> None:
        assert [method for method, _, _, _ in self.heard] == list(methods)
        assert LOCAL_TOKEN not in repr(self.heard)


def uploads(files: dict[str, bytes]) -> list[Upload]:
    return [Upload(path, content, hashlib.sha256(content).hexdigest()) for path, content in files.items()]


def publish(hub: Hub) -> str:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    commit = hub.commit(hub.stage(REPOSITORY, uploads(FILES)), parent=parent, title="Add files", description="")
    assert commit is not None
    return commit


def refusal(call: Callable[[], object], kind: type[MergelineError] = HubError) -> str:
    with pytest.raises(kind) as failure:
        call()
    text = str(failure.value)
    assert "\n" not in text
    assert LOCAL_TOKEN not in text
    return text


def listing(local_hub: LocalHub, commit: str) -> list[dict[str, object]]:
    address = f"{local_hub.endpoint}/api/models/{REPOSITORY}/tree/{commit}?recursive=1"
    with urlopen(Request(address, headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})) as answer:
        return json.load(answer)


def lie(local_hub: LocalHub, pattern: str, body: object = None, /, **headers: str) -> None:
    """Answer matching requests for real, but with these headers (``_`` is ``-``) and this JSON."""
    text = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    local_hub.faults.append(Fault(pattern, status=None, times=99, headers=named, body=text))


def redirect(local_hub: LocalHub, pattern: str, address: str, skip: int = 0) -> None:
    local_hub.faults.append(Fault(pattern, status=307, times=99, skip=skip, headers={"Location": address}))


def assert_untouched(treasure: Path) -> None:
    assert treasure.read_text() == "mine"
    assert {path.name for path in treasure.parent.iterdir()} <= {"treasure", "cache"}
