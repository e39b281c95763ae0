"""What every route uses: the stores, the two origins, and access rights."""

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
    """A running Hub: stores, addresses and users.

    A namespace that is not a user's name is an organisation of which every user is a member.
    """

    endpoint: str
    """Where the API is, e.g. ``http://127.0.0.1:8090``."""
    cdn_endpoint: str
    """Where large files are: another port, hence another origin."""
    contents: Contents
    """Contents of all files."""
    repositories: Repositories
    """Commits, refs and settings."""
    tokens: Mapping[str, str]
    """Access token -> user name."""
    xet: XetStore | None = None
    """The Xet store; None: large files come by LFS alone."""

    def user(self, request: Request) -> str | None:
        """Return the user whose token the request has; None without a token, 401 for a wrong token."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            if token not in self.tokens:
                raise Refusal(401, "Invalid credentials in Authorization header")
            return self.tokens[token]
        # The cookie of a browser that opened a page with ?token=...: for reading only.
        cookie = SimpleCookie(request.headers.get("Cookie", "")).get("token")
        return self.tokens.get(cookie.value) if cookie and request.method in ("GET", "HEAD") else None

    def signed_in(self, request: Request) -> str:
        """Return the user; 401 without a token."""
        user = self.user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def belongs(self, user: str | None, namespace: str) -> bool:
        """Return whether ``user`` may write, and read private repositories, in ``namespace``."""
        return user is not None and (user == namespace or namespace not in self.tokens.values())

    def readable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Return the repository; 401 or 404 where it does not exist, or is private and the user no member."""
        user, repository = self.user(request), self.repositories.find(kind, repository_id)
        if repository.exists and (self.belongs(user, repository.namespace) or not repository.state().private):
            return repository
        if user is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        raise Refusal(404, "Repository not found", "RepoNotFound")

    def visible(self, request: Request, kind: str) -> list[Repository]:
        """Return the repositories of a kind that the user may see."""
        user = self.user(request)
        return [
            repository
            for repository in self.repositories.of_kind(kind)
            if self.belongs(user, repository.namespace) or not repository.state().private
        ]

    def downloadable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Return the repository if its files may be read; 401 or 403 where it is gated and the user no member."""
        user, repository = self.user(request), self.readable(request, kind, repository_id)
        if repository.state().gated and not self.belongs(user, repository.namespace):
            reason = "you are not in the authorized list" if user else "you must have access to it and be authenticated"
            message = f"Access to {kind[:-1]} {repository.id} is restricted: {reason}. Visit {self.url(repository)}"
            raise Refusal(403 if user else 401, message, "GatedRepo")
        return repository

    def writable(self, request: Request, kind: str, repository_id: str) -> Repository:
        """Return the repository if the user may change it; 401 without a token, 403 in someone else's namespace."""
        user = self.signed_in(request)
        repository = self.readable(request, kind, repository_id)
        self.require_membership(user, repository.namespace)
        return repository

    def require_membership(self, user: str, namespace: str) -> None:
        """Raise 403 unless the user is a member of the namespace."""
        if not self.belongs(user, namespace):
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace!r}")

    def url(self, repository: Repository) -> str:
        """Return the address of the repository's page."""
        prefix = "" if repository.kind == "models" else f"/{repository.kind}"
        return f"{self.endpoint}{prefix}/{repository.id}"
