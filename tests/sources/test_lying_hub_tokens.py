"""A Hub that lies: the token stays at its origin."""

import json
import os
from pathlib import Path

import pytest

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub
from mergeline.errors import MergelineError
from mergeline.sources.hub import Hub
from mergeline.sources.hub_transport import guarded
from tests.builders.lying_hub import (
    CONFIG,
    FILES,
    REPOSITORY,
    SHA256,
    WEIGHTS,
    Stranger,
    lie,
    listing,
    publish,
    redirect,
    refusal,
    uploads,
)


def test_a_list_that_continues_elsewhere_is_refused(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    publish(hub)
    lie(local_hub, "GET .*/tree/", Link=f'<{stranger.url}/api/models/x/tree/main?cursor=secret>; rel="next"')
    text = refusal(lambda: hub.resolve(REPOSITORY))
    assert f"names '{stranger.url}/api/models/x/tree/main' as the list's next page" in text
    assert not stranger.heard
    lie(local_hub, "GET .*/commits/", Link=f'<{stranger.url}/>; rel="next"')
    assert "as the list's next page" in refusal(lambda: hub.commits(REPOSITORY))
    assert not stranger.heard


@pytest.mark.parametrize("address", ["http://[", "//elsewhere.example/x", "/files"])
def test_a_list_continues_only_as_a_list_at_the_same_origin(address: str, hub: Hub, local_hub: LocalHub) -> None:
    publish(hub)
    lie(local_hub, "GET .*/tree/", Link=f'<{address}>; rel="next"')
    assert "it was not followed" in refusal(lambda: hub.resolve(REPOSITORY))


def test_a_list_of_several_pages_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.loopback_hub.files._PAGE_ENTRIES", 2)
    publish(hub)
    assert {file.path for file in hub.resolve(REPOSITORY).files} == {*FILES, ".gitattributes"}


def test_a_redirect_elsewhere_goes_without_token_and_cookies(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    # Cookies know no ports: what this Hub sets would go to every server on 127.0.0.1.
    local_hub.faults.append(Fault("whoami", status=None, headers={"Set-Cookie": f"session={LOCAL_TOKEN}; Path=/"}))
    hub.whoami()
    redirect(local_hub, "whoami", f"{stranger.url}/api/whoami-v2")
    stranger.body = b'{"name": "stranger"}'
    assert hub.whoami() == "stranger"
    stranger.assert_asked_without_token("GET")


def test_a_redirect_within_the_hub_keeps_the_token(hub: Hub, local_hub: LocalHub) -> None:
    redirect(local_hub, "whoami-v2$", "/api/whoami-v2?again")
    assert hub.whoami() == "mergeline"


def test_another_hub_that_the_library_knows_gets_no_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # huggingface_hub lets huggingface.co, hf.co and the HF_ENDPOINT it was imported with have every Hub's token.
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    port = int(stranger.url.rpartition(":")[2])
    monkeypatch.setattr("huggingface_hub.utils._http._HUB_ORIGINS", frozenset({("http", "127.0.0.1", port)}))
    stranger.body, stranger.headers = CONFIG, {"X-Repo-Commit": commit, "ETag": f'"{"0" * 40}"'}
    redirect(local_hub, "/resolve/", f"{stranger.url}/config.json")
    directory = hub.download(pinned, ["config.json"], tmp_path / "cache")
    assert (directory / "config.json").read_bytes() == CONFIG
    stranger.assert_asked_without_token("HEAD", "GET")


def test_content_elsewhere_is_read_without_token(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    stranger.body = CONFIG
    redirect(local_hub, "/resolve/", f"{stranger.url}/config.json")
    assert hub.read_file(pinned, "config.json") == CONFIG
    assert hub.read_range(pinned, "config.json", 0, len(CONFIG)) == CONFIG
    assert hub.read_range(pinned, "config.json", 0, len(CONFIG)) == CONFIG
    stranger.assert_asked_without_token("GET", "GET", "GET")


def test_uploads_are_sent_and_verified_elsewhere_without_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    action = {"href": f"{stranger.url}/put", "header": {"Authorization": "not ours"}}
    actions = {"upload": action, "verify": {"href": f"{stranger.url}/verify"}}
    lie(local_hub, "objects/batch", {"objects": [{"oid": SHA256, "size": len(WEIGHTS), "actions": actions}]})
    hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS}))
    stranger.assert_asked_without_token("PUT", "POST")


def test_parts_are_uploaded_and_joined_elsewhere_without_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parts = {"chunk_size": "200000", "1": f"{stranger.url}/1", "2": f"{stranger.url}/2"}
    actions = {"upload": {"href": f"{stranger.url}/complete", "header": parts}}
    lie(local_hub, "objects/batch", {"objects": [{"oid": SHA256, "size": len(WEIGHTS), "actions": actions}]})
    hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS}))
    stranger.assert_asked_without_token("PUT", "PUT", "POST")


@pytest.mark.parametrize("pattern", ["POST .*/preupload/", "POST .*/objects/batch", "POST .*/commit/"])
def test_a_write_redirected_elsewhere_goes_without_token(
    pattern: str, hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    redirect(local_hub, pattern, f"{stranger.url}/taken")
    stranger.body = b"{}"
    with pytest.raises(Exception, match=r"."):  # whatever the library makes of an empty answer
        hub.commit(hub.stage(REPOSITORY, uploads(FILES)), parent=parent, title="Add files", description="")
    stranger.assert_asked_without_token("POST")


@pytest.mark.parametrize("address", ["{stranger}/token", "http://{there}\\@{here}/token", "//{there}/token"])
@pytest.mark.parametrize("header", ["Link", "X-Xet-Refresh-Route"])
def test_xet_tokens_are_asked_of_the_hub_alone(
    header: str, address: str, xet_hub: LocalHub, stranger: Stranger, tmp_path: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    # Without a Xet hash in the listing the library asks the file's own address, and believes what that says.
    lie(xet_hub, "GET .*/tree/", [{**entry, "xetHash": None} for entry in listing(xet_hub, commit)])
    there, here = stranger.url.removeprefix("http://"), xet_hub.endpoint.removeprefix("http://")
    address = address.format(stranger=stranger.url, there=there, here=here)
    link = f'<{address}>; rel="xet-auth"' if header == "Link" else '</>; rel="other"'
    xet_hub.faults.append(
        Fault("HEAD .*/resolve/", status=None, times=99, headers={"Link": link, "X-Xet-Refresh-Route": address})
    )
    text = refusal(lambda: hub.download(pinned, ["model.safetensors"], tmp_path / "cache"))
    assert "as the place for Xet tokens" in text
    assert not stranger.heard


def test_a_xet_store_elsewhere_gets_its_own_token_alone(xet_hub: LocalHub, stranger: Stranger, tmp_path: Path) -> None:
    hub = Hub(xet_hub.endpoint)
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    stranger.status = 404  # hf_xet tries anything else again for minutes
    lie(xet_hub, "/xet-read-token/", X_Xet_Cas_Url=stranger.url, X_Xet_Access_Token="for the store")
    with pytest.raises(MergelineError):
        hub.download(pinned, ["model.safetensors"], tmp_path / "cache")
    assert stranger.heard
    assert LOCAL_TOKEN not in repr(stranger.heard)
    assert "for the store" in repr(stranger.heard)


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_xet_token_address_that_redirects_takes_no_token_along(
    direction: str, xet_hub: LocalHub, stranger: Stranger, tmp_path: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    pattern = f"/xet-{direction}-token/"
    stranger.status = 404
    stranger.body = json.dumps({"casUrl": stranger.url, "accessToken": "for the store", "exp": 1 << 40}).encode()
    if direction == "read":
        # The library's own answer has expired: hf_xet asks anew, with the Hub's token, and is sent elsewhere.
        xet_hub.faults.append(Fault(pattern, status=None, skip=1, headers={"X-Xet-Token-Expiration": "1"}))
        redirect(xet_hub, pattern, f"{stranger.url}/token", skip=1)
        with pytest.raises(MergelineError):
            hub.download(pinned, ["model.safetensors"], tmp_path / "cache")
    else:
        redirect(xet_hub, pattern, f"{stranger.url}/token")
        with pytest.raises(MergelineError):
            hub.stage(REPOSITORY, uploads({"other.safetensors": os.urandom(100_000)}))
    (asked,) = stranger.heard
    assert asked[1] == "/token"
    assert "x-xet-session-id" in asked[2]  # hf_xet, which has a client of its own
    assert LOCAL_TOKEN not in repr(stranger.heard)


@pytest.mark.parametrize(
    ("address", "is_home"),
    [
        ("https://hub.example/api/whoami-v2", True),
        ("https://HUB.example:443/elsewhere", True),
        ("https://user:password@hub.example/", True),
        ("http://hub.example/", False),
        ("http://hub.example:443/", False),
        ("https://hub.example:444/", False),
        ("https://hub.example.elsewhere/", False),
        ("https://cdn.hub.example/", False),
        ("https://hub.example@elsewhere/", False),
        ("https://elsewhere/hub.example/", False),
    ],
)
def test_home_is_scheme_host_and_port(address: str, is_home: bool) -> None:
    from huggingface_hub.utils import get_session, httpx

    request = httpx.Request("GET", address, headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})
    with guarded("https://hub.example/prefix"):
        for hook in get_session().event_hooks["request"]:
            hook(request)
    assert (LOCAL_TOKEN in repr(request.headers.raw)) == is_home


def test_the_program_s_own_client_is_kept_and_free_outside_of_calls(
    hub: Hub, local_hub: LocalHub, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import _http, get_session, httpx, set_client_factory

    before = _http._GLOBAL_CLIENT_FACTORY
    try:
        set_client_factory(lambda: httpx.Client(headers={"X-Proxy-Key": "of the program"}, follow_redirects=True))
        redirect(local_hub, "whoami", f"{stranger.url}/api/whoami-v2")
        stranger.body = b'{"name": "stranger"}'
        hub.whoami()
        stranger.assert_asked_without_token("GET")
        assert stranger.heard[0][2]["X-Proxy-Key"] == "of the program"
        get_session().get(stranger.url, headers={"Authorization": "of the program"})
        assert stranger.heard[1][2]["Authorization"] == "of the program"
    finally:
        set_client_factory(before)
