"""What every route works with: the stores, the two origins, and who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie

from deployments.loopback_hub.contents import Contents
from deployments.loopback_hub.messages import Refusal, Request
from deployments.loopback_hub.repositories import Repositories, Repository
from deployments.loopback_hub.xet import XetStore


@dataclass(frozen=True)
class Site:
    """One running Hub.

    A namespace that is nobody's user name is an organisation to which every user belongs.
    """

    endpoint: str
    """Where the API is, e.g. ``http://127.0.0.1:8090``."""
    cdn_endpoint: str
    """Where large files are: another port, hence another origin."""
    contents: Contents
    """The bytes."""
    repositories: Repositories
    """The repositories that refer to them."""
    tokens: Mapping[str, str]
    """Access token -> user name."""
    xet: XetStore | None = None
    """The Xet store; None for a Hub that speaks only LFS."""
    multipart_bytes: int | None = None
    """LFS uploads above this size come in parts of this size."""

    def user(self, request: Request) -> str | None:
        """Give the user whose token the request carries; None without one, 401 with a wrong one."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            if token not in self.tokens:
                raise Refusal(401, "Invalid credentials in Authorization header")
            return self.tokens[token]
        # A browser that opened a page with ?token=... goes on reading with this cookie; it may not write.
        cookie = SimpleCookie(request.headers.get("Cookie", "")).get("token")
        return self.tokens.get(cookie.value) if cookie and request.method in ("GET", "HEAD") else None

    def signed_in(self, request: Request) -> str:
        """Give the user; 401 without a token."""
        user = self.user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def belongs(self, user: str | None, namespace: str) -> bool:
        """Say whether ``user`` may write, and read what is private, in ``namespace``."""
        return user is not None and (user == namespace or namespace not in self.tokens.values())

    def readable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Give the repository; a private one is to strangers as if it were not there."""
        user, repository = self.user(request), self.repositories.find(kind, repository_id)
        if repository.exists and (self.belongs(user, repository.namespace) or not repository.record().private):
            return repository
        if user is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        raise Refusal(404, "Repository not found", "RepoNotFound")

    def downloadable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Give the repository if its files may be read too, past its gate."""
        user, repository = self.user(request), self.readable(request, kind, repository_id)
        record = repository.record()
        if record.gated and not self.belongs(user, repository.namespace) and user not in record.granted:
            reason = "you are not in the authorized list" if user else "you must have access to it and be authenticated"
            message = f"Access to {kind[:-1]} {repository.id} is restricted: {reason}. Visit {self.url(repository)}"
            raise Refusal(403 if user else 401, message, "GatedRepo")
        return repository

    def writable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Give the repository if the user may change it; 401 without a token, 403 in someone else's namespace."""
        user = self.signed_in(request)
        repository = self.readable(request, kind, repository_id)
        self.require_membership(user, repository.namespace)
        return repository

    def require_membership(self, user: str, namespace: str) -> None:
        """Refuse with 403 who does not belong to the namespace."""
        if not self.belongs(user, namespace):
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace!r}")

    def url(self, repository: Repository) -> str:
        """Give the address of the repository's page."""
        prefix = "" if repository.kind == "models" else f"/{repository.kind}"
        return f"{self.endpoint}{prefix}/{repository.id}"
