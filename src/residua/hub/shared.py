"""What is shared as a folder: saved with a card, pushed to the Hugging Face Hub, and fetched from there."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from residua.caution import warn
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError, ResiduaError
from residua.folder import EDITS, LOCK, MANIFEST, OWN, named_files, read_manifest, reader_in, reads_edits
from residua.hub.card import CARD, Findings, write_card
from residua.printable import count


class Shared(ABC):
    """A memory, or a reader with its memory."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None: ...

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        evaluation: Findings | None = None,
        base_model: str | None = None,
        license: str | None = None,
    ) -> None:
        """``save``, and a card, ``README.md``: what is remembered, whose it is, how it persists, how to erase.

        A folder with a card is loaded and verified as any other. Of a card that is there, only what an earlier call
        wrote is written anew; a ``README.md`` of yours stays as it is.

        Parameters
        ----------
        folder : path
            One that holds this memory, is empty or new, or is a clone of an empty repository.
        evaluation : Evaluation, optional
            What ``rs.evaluate`` found, for the card.
        base_model, license : str, optional
            For the card's head, by which the hub searches: the model's name on the hub, and a licence such as
            ``"apache-2.0"``.

        Raises
        ------
        MemoryFileError

        Examples
        --------
        >>> import numpy as np, pathlib, residua as rs, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
        >>> memory.save_pretrained(folder, base_model="me/my-model")
        >>> (folder / "README.md").read_text().splitlines()[1]
        'library_name: "residua"'
        >>> len(rs.Memory.from_pretrained(folder))
        3
        """
        self.save(folder)
        write_card(Path(folder), evaluation=evaluation, base_model=base_model, license=license)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
        evaluation: Findings | None = None,
        base_model: str | None = None,
        license: str | None = None,
    ) -> str:
        """Put what ``save_pretrained`` writes into a repository of the Hugging Face Hub, in one commit; its address.

        A memory holds examples, so a repository that this makes is private unless you say otherwise; one that is there
        stays as private as it is. Files of an older memory there are deleted, but not from its earlier commits. Rows
        that are forgotten and still in the memory's files would go along: ``rebuild`` first, or a ``UserWarning``.

        Parameters
        ----------
        repo_id : str
            ``"name"`` or ``"user/name"``.
        private : bool, default True
        revision : str, optional
            A branch; by default ``"main"``.
        commit_message : str, optional
        token : str or bool, optional
            As of ``huggingface_hub``; by default the one that ``hf auth login`` stored.
        evaluation, base_model, license
            As for ``save_pretrained``.

        Raises
        ------
        MissingDependencyError, MemoryFileError
        """
        hub = _hub()
        with tempfile.TemporaryDirectory() as folder, _asking(f"{repo_id} on the hub"):
            api = hub.HfApi(token=token)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            card = _card_there(api, repo_id, revision)
            if card is not None:
                shutil.copyfile(card, Path(folder, CARD))
            self.save_pretrained(folder, evaluation=evaluation, base_model=base_model, license=license)
            saved = (one for one in (Path(folder), Path(folder, EDITS)) if (one / MANIFEST).exists())
            forgotten = sum(read_manifest(one)["summary"]["forgotten"] for one in saved)
            if forgotten:
                warn(
                    f"{count(forgotten, 'forgotten row')} went to {repo_id} with the memory's files: rebuild() it and "
                    "push again, then squash the repository's history (huggingface_hub.super_squash_history)"
                )
            done = api.upload_folder(
                folder_path=folder,
                repo_id=repo_id,
                revision=revision,
                commit_message=commit_message or f"Save a {type(self).__name__} with residua",
                ignore_patterns=[LOCK, f"{EDITS}/{LOCK}"],
                delete_patterns=[f"{name}*" for name in (*OWN, f"{EDITS}/")],
            )
        return str(done.commit_url)


class HubOptions(TypedDict, total=False):
    """How a repository is fetched, as by ``huggingface_hub``; not for a folder that is here."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool


@contextmanager
def fetched(repo_or_folder: str | os.PathLike[str], **options: Unpack[HubOptions]) -> Iterator[Path]:
    """The folder that is meant: one that is here, or a repository's, as plain files that go when the block ends.

    Of a repository only what its manifest names is fetched, into the hub's own cache. One that holds no memory, or
    cannot be read, is a ``MemoryFileError``.
    """
    if Path(repo_or_folder).is_dir():
        if options:
            name = next(iter(options))
            raise ParameterError(f"{name}= is of a repository on the hub, and {repo_or_folder} is a folder here")
        yield Path(repo_or_folder)
        return
    hub, repo_id = _hub(), os.fspath(repo_or_folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps mapped files
        with _asking(f"{repo_id} is no folder here, and on the hub"):
            link = Path(hub.hf_hub_download(repo_id, MANIFEST, **options))
            cache = link.parents[2]
            _put(link, Path(folder), cache)
            options["revision"] = link.parent.name  # the cache calls a snapshot by its commit
            manifest = read_manifest(Path(folder))
            names = [about["file"] for about in named_files(manifest)]
            if reads_edits(reader_in(Path(folder), manifest)):
                own = Path(folder, EDITS)
                own.mkdir()
                _put(Path(hub.hf_hub_download(repo_id, f"{EDITS}/{MANIFEST}", **options)), own, cache)
                names += [f"{EDITS}/{about['file']}" for about in named_files(read_manifest(own))]
            for name in names:
                _put(Path(hub.hf_hub_download(repo_id, name, **options)), Path(folder, name).parent, cache)
        yield Path(folder)


def _put(link: Path, folder: Path, cache: Path) -> None:
    """A file of the cache, where names are links to what they stand for, as a file of `folder`: a memory's has no
    links, which may lead anywhere."""
    cache, real = cache.resolve(), link.resolve()
    if not real.is_relative_to(cache):
        raise MemoryFileError(f"{link} leads to {real}, which is not in the cache of its repository")
    try:
        os.link(real, folder / link.name)
    except OSError:  # on another disk
        shutil.copyfile(real, folder / link.name)


def _card_there(api: Any, repo_id: str, revision: str | None) -> str | None:
    """The card that a repository has."""
    if not api.file_exists(repo_id, CARD, revision=revision):
        return None
    return api.hf_hub_download(repo_id, CARD, revision=revision)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """What the hub refuses in here is a ``MemoryFileError``, which begins with `what`."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # Where nobody answers, the client raises what the library for HTTP does; a name that is none is a ValueError.
    http = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        yield
    except ResiduaError:
        raise
    except (EntryNotFoundError, *http, OSError, ValueError) as error:
        why = str(error).strip().splitlines()
        raise MemoryFileError(f"{what}: {why[0] if why else type(error).__name__}") from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            'the Hugging Face Hub needs huggingface_hub; install it with: pip install "residua[hub]"'
        ) from error
    return huggingface_hub
