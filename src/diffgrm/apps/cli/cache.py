"""The command line: diffgrm cache."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from diffgrm.foundation.schema import DataError, OutputError, bullet_list, did_you_mean

if TYPE_CHECKING:
    from diffgrm.foundation.cache import Entry


def cache(
    kinds: Annotated[
        list[str] | None, typer.Argument(help="Only these: embeddings, semantic_ids, events; without, all three.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Show every entry, the longest idle first.")] = False,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Only what nobody has used for so many days.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete it; what is needed again is made again.")] = False,
) -> None:
    """Show what the cache holds, or delete it: item vectors, semantic IDs and coded events.

    Others may use the cache meanwhile: what was used within the last minute, or is being written, stays. Public datasets,
    which would have to be downloaded again, are shown and never deleted.
    """
    from diffgrm.apps.console import show_cache
    from diffgrm.foundation.cache import DAY, NAMES, downloads_size, entries
    from diffgrm.foundation.storage import cache_folder
    from diffgrm.foundation.terminal import say

    if clear and list_all:
        raise DataError("--list shows entries and --clear deletes them; give one of them (--list first)")
    if strange := [kind for kind in kinds or [] if kind not in NAMES]:
        raise DataError(f"the cache holds no {strange[0]!r}{did_you_mean(strange[0], NAMES)}")
    home = cache_folder()
    if home is None:
        raise DataError("this user has no home folder, so nothing is cached; DIFFGRM_CACHE would name a folder")
    now = time.time()
    found = [entry for entry in entries(home) if not kinds or entry.kind in kinds]
    if older_than is not None:
        found = [entry for entry in found if entry.idle(now) >= older_than * DAY]
    if not clear:
        show_cache(str(home), found, downloads_size(home), now, list_all)
        return
    say(_cleared(found, now))


def _cleared(found: list[Entry], now: float) -> str:
    """Delete what is not in use; a word on what was.

    Raises:
        OutputError: some of it cannot be deleted.
    """
    from rich.filesize import decimal

    from diffgrm.foundation.cache import remove

    free, problems, freed = [entry for entry in found if entry.is_free(now)], [], 0
    for entry in free:
        try:
            remove(entry)
            freed += entry.size
        except OSError as error:
            problems.append(f"{entry.path}: {error.strerror or error}")
    if problems:
        raise OutputError(
            f"{len(problems)} of {len(free)} entries could not be deleted (are they in use, or another user's?); the "
            f"others are, {decimal(freed)}:\n{bullet_list(problems)}"
        )
    kept = f" {len(found) - len(free)} are in use or being written, and stay." if len(found) > len(free) else ""
    return f"{len(free)} entries deleted, {decimal(freed)}.{kept}"
