"""A dataset repository on the Hugging Face Hub as the target of releases; the one importer of `huggingface_hub`.

A release is one commit on `main`, then a tag on that commit, then a look at what the Hub holds. The commit names its
parent, so that nobody else's change is lost: whoever comes second is refused (412). Three things can be cut off in
between, and each is told from what the Hub says:
    the answer to the commit is lost     the head of `main` holds our manifest: it is there
    no tag yet                           the head's manifest names a version without a tag: the next run sets it
    the tag is somebody else's           the next run publishes the same tasks under the next version
Large files go up before the commit, and unused ones do no harm, so `main` always shows a whole release.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ..errors import ReleaseError
from . import versions
from .build import BuiltRelease, Manifest, files_below, read_manifest, sha256
from .target import Held

T = TypeVar("T")

_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of httpx, or of the httpx2 that newer versions carry
_WAITS = (1, 2, 4)  # seconds before each repetition, where the Hub does not name a time
_LONGEST_WAIT = 300
_KEPT = {".gitattributes", "README.md"}  # what a new repository may hold without being somebody's dataset


class HubTarget:
    """The dataset repository `ORG/NAME` (or `NAME`, in the account of the token)."""

    def __init__(self, repo: str, *, private: bool) -> None:
        self._api = HfApi()
        self._private = private
        self._head: str | None = None  # the commit that look() saw; None: no such repository
        self._files: dict[str, RepoFile] = {}
        self._tags: dict[str, str] = {}
        self.name = self._full_name(repo)

    # looking -----------------------------------------------------------------------------------

    def look(self) -> Held:
        """What `main` holds. Raises ReleaseError where there is no token or the repository is not ours to write."""
        with _explained(self.name):
            try:
                info = _patiently(lambda: self._api.dataset_info(self.name))
            except RepositoryNotFoundError:
                self._refuse_other_kinds()
                return Held()
            self._head = info.sha
            assert self._head is not None
            self._files = self._tree(self._head)
            refs = _patiently(lambda: self._api.list_repo_refs(self.name, repo_type="dataset"))
            self._tags = {tag.name: tag.target_commit for tag in refs.tags}
            manifest = self._manifest(self._head)
            if manifest is None:
                self._refuse_foreign(private=info.private)
            readme = self._read("README.md", self._head)
            whole = manifest is not None and all(map(self._is_there, manifest["files"].items()))
            tagged = self._tags.get(manifest["version"]) if manifest else None
            return Held(
                manifest=manifest,
                readme=readme.decode("utf-8", "replace") if readme is not None else None,
                whole=whole,
                versions=frozenset(filter(versions.is_version, self._tags)),
                commit=tagged,
                spent=tagged is not None and (not whole or self._manifest(tagged) != manifest),
            )

    def _full_name(self, repo: str) -> str:
        """The name with its namespace; checks the token, so that a wrong one is known before anything is built."""
        with _explained(repo):
            if get_token() is None:
                raise ReleaseError(
                    "there is no token for the Hugging Face Hub",
                    hint="export HF_TOKEN=… (a token that may write, from your account's settings on the Hub)",
                )
            account = _patiently(self._api.whoami)
        role = account.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise ReleaseError(
                "the token for the Hub may only read", hint="export HF_TOKEN=… with a token that may write"
            )
        name = repo if "/" in repo else f"{account['name']}/{repo}"
        spaces = {account["name"], *(org["name"] for org in account.get("orgs", ()))}
        if name.split("/")[0] not in spaces:
            raise ReleaseError(
                f"{name} belongs to others: the token's account is {account['name']}",
                hint=f"Publish to one of {', '.join(sorted(spaces))}, or use a token of that organization.",
            )
        return name

    def _refuse_other_kinds(self) -> None:
        for kind in ("model", "space"):
            if _patiently(lambda kind=kind: self._api.repo_exists(self.name, repo_type=kind)):  # type: ignore[misc]
                raise ReleaseError(f"{self.name} is a {kind} on the Hub, not a dataset", hint="Choose another name.")

    def _refuse_foreign(self, *, private: bool | None) -> None:
        foreign = sorted(self._files.keys() - _KEPT)
        if foreign:
            raise ReleaseError(
                f"{self.name} holds files that are not of a release of ours, such as {foreign[0]}",
                hint="Choose another name, or empty that repository on the Hub.",
            )
        if self._private and private is False:
            raise ReleaseError(
                f"{self.name} is public on the Hub, and the recipe asks for a private one",
                hint="Make it private on the Hub, or: --set release.private=false",
            )

    def _is_there(self, entry: tuple[str, str]) -> bool:
        """Whether a file is as published; of small files, which people may edit on the Hub, only that it exists."""
        name, digest = entry
        file = self._files.get(name)
        return file is not None and (file.lfs is None or name == "README.md" or file.lfs.sha256 == digest)

    def _tree(self, revision: str) -> dict[str, RepoFile]:
        tree = _patiently(
            lambda: list(self._api.list_repo_tree(self.name, recursive=True, revision=revision, repo_type="dataset"))
        )
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def _manifest(self, revision: str | None) -> Manifest | None:
        text = self._read("manifest.json", revision)
        return read_manifest(text, self.name) if text is not None else None

    def _read(self, path: str, revision: str | None) -> bytes | None:
        if revision == self._head and path not in self._files:
            return None
        try:
            found = _patiently(lambda: hf_hub_download(self.name, path, repo_type="dataset", revision=revision))
        except (EntryNotFoundError, RevisionNotFoundError):
            return None
        return Path(found).read_bytes()

    # changing ----------------------------------------------------------------------------------

    def mend(self, held: Held) -> str | None:
        """Sets the tag that an interrupted run left out; the commit that got it, None where nothing was missing."""
        if held.manifest is None or held.manifest["version"] in self._tags or not held.whole:
            return None
        version = held.manifest["version"]
        with _explained(self.name):
            commits = _patiently(
                lambda: self._api.list_repo_commits(self.name, repo_type="dataset", revision=self._head)
            )
            commit = next((commit.commit_id for commit in commits if commit.title == _title(version)), self._head)
            assert commit is not None
            self._tag(version, commit)
        return commit

    @contextmanager
    def building(self) -> Iterator[Path]:
        """An empty folder to build the release in."""
        folder = Path(tempfile.mkdtemp(prefix="sia-release-"))
        try:
            yield folder
        except OSError as error:
            raise ReleaseError(f"the release cannot be built in {folder}: {error.strerror}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, release: BuiltRelease, previous: Manifest | None) -> str:
        """The built release as one commit with one tag; its commit id. Files of the previous release that are gone
        from this one are deleted, files of others stay."""
        with _explained(self.name), _quietly():
            if self._head is None:
                _patiently(
                    lambda: self._api.create_repo(self.name, repo_type="dataset", private=self._private, exist_ok=True)
                )
                self._head = _patiently(lambda: self._api.dataset_info(self.name)).sha
            commit = self._commit(release, previous)
            self._tag(release.manifest["version"], commit)
            self._verify(release, commit)
        return commit

    def _commit(self, release: BuiltRelease, previous: Manifest | None) -> str:
        names = sorted(files_below(release.folder))
        stale = self._files.keys() & {*(previous or {"files": ()})["files"]} - set(names)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, release.folder / name) for name in names),
            *(CommitOperationDelete(name) for name in sorted(stale)),
        ]
        title = _title(release.manifest["version"])
        for wait in (*_WAITS, None):
            try:
                with _unwrapped():
                    info = self._api.create_commit(
                        self.name, operations, commit_message=title, parent_commit=self._head, repo_type="dataset"
                    )
                return str(info.oid)
            except (_HTTPError, OSError) as error:
                landed = self._landed(release, error)
                if landed:
                    return landed
                if wait is None or not _is_passing(error):
                    raise
                time.sleep(_wait(error, wait))  # a repetition is safe: a second commit would have another parent
        raise AssertionError("unreachable")

    def _landed(self, release: BuiltRelease, error: Exception) -> str | None:
        """The commit, where it is on the Hub although the answer says otherwise or never came."""
        if not _is_passing(error) and _status(error) not in (409, 412):
            return None
        head = _patiently(lambda: self._api.dataset_info(self.name)).sha
        assert head is not None
        files = self._tree(head) if head != self._head else {}
        manifest = files.get("manifest.json")
        return head if manifest is not None and _same(manifest, release.folder / "manifest.json") else None

    def _tag(self, version: str, commit: str) -> None:
        def create() -> None:
            self._api.create_tag(self.name, tag=version, revision=commit, repo_type="dataset")

        try:
            _patiently(create)
        except HfHubHTTPError as error:
            if _status(error) != 409:
                raise
            refs = _patiently(lambda: self._api.list_repo_refs(self.name, repo_type="dataset"))
            if not any(tag.name == version and tag.target_commit == commit for tag in refs.tags):
                raise ReleaseError(
                    f"{self.name} has a tag {version} on another commit",
                    hint="Run the same command again: it takes the next version.",
                ) from error

    def _verify(self, release: BuiltRelease, commit: str) -> None:
        there = self._tree(commit)
        for name in files_below(release.folder):
            if name not in there or not _same(there[name], release.folder / name):
                raise ReleaseError(
                    f"{self.name} does not hold {name} as it was built", hint="Run the same command again."
                )


def find(repo: str, revision: str | None = None) -> tuple[str, bool]:
    """The commit that a tag, branch or commit of a dataset names, and whether it has a release of ours."""
    with _explained(repo):
        try:
            info = _patiently(lambda: HfApi().dataset_info(repo, revision=revision))
        except RevisionNotFoundError as error:
            raise ReleaseError(
                f"{repo} has no revision {revision!r}", hint="Its tags are the versions, such as v1.0.0."
            ) from error
    assert info.sha is not None
    return info.sha, any(file.rfilename == "manifest.json" for file in info.siblings or ())


def download(repo: str, path: str, commit: str) -> Path:
    """A file of a dataset, in the client's own cache."""
    with _explained(repo):
        return Path(_patiently(lambda: hf_hub_download(repo, path, repo_type="dataset", revision=commit)))


def _title(version: str) -> str:
    return f"Release {version}"


def _same(remote: RepoFile, local: Path) -> bool:
    """Whether a file on the Hub has the bytes of a local one: by sha256, or by git's blob id for small ones."""
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == sha256(local))
    content = local.read_bytes()
    return bool(remote.blob_id == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest())


# failures --------------------------------------------------------------------------------------


def _patiently(call: Callable[[], T]) -> T:
    """The call's answer; it is repeated while the Hub is busy, and must do no harm when it is."""
    for wait in _WAITS:
        try:
            return call()
        except (_HTTPError, OSError) as error:
            if not _is_passing(error):
                raise
            time.sleep(_wait(error, wait))
    return call()


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error; None where there was no answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _is_passing(error: BaseException) -> bool:
    """Whether a failure says nothing about the request: busy, broken or silent servers."""
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    cause = error.__cause__
    if isinstance(error, EntryNotFoundError) and cause is not None:  # "not in the cache", because the Hub was away
        return _is_passing(cause)
    return isinstance(error, _HTTPError)


def _wait(error: BaseException, otherwise: float) -> float:
    """Seconds to wait: what the Hub asks for (`Retry-After`, `RateLimit`), within reason."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    if not asked.isdigit():
        asked = dict(part.partition("=")[::2] for part in headers.get("RateLimit", "").split(";")).get("t", "")
    return min(int(asked), _LONGEST_WAIT) if asked.isdigit() else otherwise


@contextmanager
def _unwrapped() -> Iterator[None]:
    """The client reports a failed upload as a RuntimeError and a refused card as a ValueError; their causes are what
    happened."""
    try:
        yield
    except HfHubHTTPError:
        raise  # some of these are ValueErrors, too
    except ValueError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            reason = " ".join(str(error).split()[4:])  # after "Invalid metadata in README.md."
            raise ReleaseError(
                f"the Hub refuses the card: {reason}", hint="Correct release.license or language in the recipe."
            ) from error
        raise
    except RuntimeError as error:
        if isinstance(error.__cause__, (_HTTPError, OSError)):
            raise error.__cause__ from error
        raise


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Failures of the Hub as one sentence and the next step."""
    try:
        yield
    except HFValidationError as error:
        raise ReleaseError(
            f"{repo!r} is not a name for a repository on the Hub",
            hint="Write ORG/NAME with letters, digits, '-', '_' and '.'.",
        ) from error
    except HfHubHTTPError as error:
        raise ReleaseError(*_sentence(repo, error)[:1], hint=_sentence(repo, error)[1]) from error
    except (_HTTPError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, (EntryNotFoundError, ConnectionError)):
            reason = error.strerror or str(error)
        else:
            reason = "it does not answer"
        raise ReleaseError(
            f"the Hub cannot be reached for {repo}: {reason}",
            hint="Check the connection (and HF_ENDPOINT), then run the same command again: it goes on.",
        ) from error


def _sentence(repo: str, error: HfHubHTTPError) -> tuple[str, str]:
    status, message = _status(error), (error.server_message or "").strip()
    if status == 401:
        return "the Hub refuses the token", "export HF_TOKEN=… with a token that may write"
    if status == 403:
        return (
            f"the token may not write to {repo}" + (f": {message}" if message else ""),
            "Use a token with write access to it, or name a repository of your own.",
        )
    if status == 404:
        return f"the Hub has no dataset {repo} that this token may see", "Check the name and the token."
    if status in (409, 412):
        return (
            f"somebody else changed {repo} in the meantime",
            "Run the same command again: it starts from there.",
        )
    if status == 429:
        return "the Hub asks to slow down", "Wait some minutes, then run the same command again: it goes on."
    if status == 400:
        return f"the Hub refuses the release: {message or error}", "Correct the recipe's release section."
    return f"the Hub fails (HTTP {status})", "Run the same command again later: it goes on."


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the client's own progress bars."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
