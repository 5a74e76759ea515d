"""Which files of a memory's folder nothing speaks of."""

from __future__ import annotations

from pathlib import Path

from residua.folder import LOCK, MANIFEST, earlier_manifest, named_files, read_manifest


def left_over(folder: Path) -> list[str]:
    """Files that neither the manifest names nor one of the earlier ones that are kept."""
    manifest = read_manifest(folder)
    named = {MANIFEST, LOCK, *(earlier_manifest(one) for one in manifest["earlier"])}
    for name in sorted(named - {LOCK}):
        named |= {about["file"] for about in named_files(read_manifest(folder, name))}
    return sorted({file.name for file in folder.iterdir()} - named)
