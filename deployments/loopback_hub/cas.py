"""Routes of the Xet store: access tokens on the Hub's side; xorbs, shards and reconstructions on the store's."""

from __future__ import annotations

import time

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.site import Site
from deployments.loopback_hub.xet import TOKEN_SECONDS, XetStore


def read_token(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Answer with a token to read the Xet store, for those who may download."""
    site.downloadable(request, kind, repository)
    return _token_answer(_store(site), _store(site).read_token)


def write_token(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Answer with a token to write to the Xet store; by the 404 of a Hub without one clients can tell."""
    site.writable(request, kind, repository)
    return _token_answer(_store(site), _store(site).write_token)


def put_xorb(site: Site, request: Request, xorb: str) -> Answer:
    """Receive a xorb."""
    store = _authorized(site, request, is_write=True)
    path = store.xorb(xorb)
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with site.contents.incoming() as incoming:
        request.save_to(incoming)
        incoming.replace(path)
    return Answer.of_json({"was_inserted": is_new})


def post_shard(site: Site, request: Request) -> Answer:
    """Receive a shard."""
    _authorized(site, request, is_write=True).add_shard(request.body())
    return Answer.of_json({"result": 1})


def reconstruction(site: Site, request: Request, xet_hash: str) -> Answer:
    """Answer where the chunks of a file are, or of its ``Range``."""
    store = _authorized(site, request)
    file = store.file(xet_hash)
    span = request.byte_range(file.size) or range(file.size)
    return Answer.of_json(store.reconstruction(file, span, f"{site.cdn_endpoint}/xorb"))


def _token_answer(store: XetStore, token: str) -> Answer:
    expiry = int(time.time()) + TOKEN_SECONDS
    # hf_xet reads the body, huggingface_hub the headers.
    headers = {"X-Xet-Cas-Url": store.address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expiry)}
    return Answer.of_json({"casUrl": store.address, "accessToken": token, "exp": expiry}, headers=headers)


def _store(site: Site) -> XetStore:
    if site.xet is None:
        raise Refusal(404, "This Hub has no Xet store")
    return site.xet


def _authorized(site: Site, request: Request, *, is_write: bool = False) -> XetStore:
    store = _store(site)
    tokens = {store.write_token} if is_write else {store.write_token, store.read_token}
    if request.headers.get("Authorization", "").removeprefix("Bearer ") not in tokens:
        raise Refusal(401, "Not a valid Xet token")
    return store
