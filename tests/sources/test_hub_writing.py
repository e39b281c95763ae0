"""Repositories made and commits written on the local Hub."""

import hashlib

import pytest

from mergeline.errors import HubError
from mergeline.sources.hub import Hub, Upload
from tests.builders.hub_repository import FILES, REPOSITORY, only_line, publish


def test_a_commit_on_a_stale_parent_is_not_made(hub: Hub) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    head = publish(hub, FILES)
    staged = hub.stage(REPOSITORY, [Upload("late.json", b"{}", hashlib.sha256(b"{}").hexdigest())])
    assert hub.commit(staged, parent=parent, title="Too late", description="") is None
    assert hub.commits(REPOSITORY)[0].commit == head


def test_creating_twice_says_so_and_visibility_can_change(hub: Hub) -> None:
    assert hub.create_repository(REPOSITORY, is_private=True)
    assert not hub.create_repository(REPOSITORY, is_private=False)
    assert hub.resolve(REPOSITORY).is_private
    hub.set_visibility(REPOSITORY, is_private=False)
    assert not hub.resolve(REPOSITORY).is_private


def test_an_invalid_card_is_refused_before_anything_is_committed(hub: Hub) -> None:
    with pytest.raises(HubError) as failure:
        publish(hub, {"README.md": b"---\nlicense: [\n---\n"})
    only_line(failure.value)
    assert len(hub.commits(REPOSITORY)) == 1
