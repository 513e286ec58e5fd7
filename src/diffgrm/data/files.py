"""Files as frames: every known format, and a path that means itself, whatever ``[ ] ? *`` are in it, if it is there."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path

import fsspec
import polars as pl

from diffgrm.data.delimited import read_delimited
from diffgrm.data.json_rows import read_json_rows
from diffgrm.data.parquet import ParquetTable, joined
from diffgrm.foundation.schema import DataError, DiffGRMError, MissingExtraError, first_few

PARQUET = ".parquet"
TEXTS: dict[str, Callable[[bytes, str], pl.DataFrame]] = {
    ".csv": lambda content, where: read_delimited(content, ",", where),
    ".tsv": lambda content, where: read_delimited(content, "\t", where),
    ".jsonl": read_json_rows,
    ".ndjson": read_json_rows,
    ".json": read_json_rows,
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda content: _zstd(content),
    ".zip": lambda content: _only_member(content)[1],
}
BEGINNINGS = {
    b"\x1f\x8b": ".gz",
    b"PK\3\4": ".zip",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PAR1\x15": PARQUET,
    **{b"BZh%d1AY&SY" % level: ".bz2" for level in range(1, 10)},
}
DAMAGE = (
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError, ValueError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError),  # the last of zip files with a password
)
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])(.+)", re.DOTALL)  # pathlib makes one slash of all


def read_parquet(path: Path) -> pl.DataFrame:
    """The parquet file of this very path, in which ``[ ] ? *`` mean themselves."""
    return pl.read_parquet(path.absolute(), glob=False)


def read_file(source: str | PathLike[str], what: str) -> pl.DataFrame:
    """A table from a file, a folder of parquet parts (in order of their names), an address of either for fsspec, or a
    pattern of parquet files.

    Text formats give texts only, so ``007`` keeps its zeros; in JSON, values have their own types.

    Args:
        what: how messages call the table.

    Raises:
        DataError: no such file, unknown format, or a damaged file, with the lines that cannot be read.
        MissingExtraError: a packing that needs a package.
    """
    try:
        place = place_of(source)
        if isinstance(place, str):
            return _at_address(place, what)
        if (files := _parquet_files(place, what)) is not None:
            return files.frame()
        return _parsed(place.name, place.read_bytes, what)
    except DiffGRMError:
        raise
    except DAMAGE as error:
        raise DataError(f"the {what} file {source} could not be read: {error}") from error


def parquet_files(source: str | PathLike[str], what: str) -> ParquetTable | None:
    """The parquet files of this machine that a path names; None where it names another format, or lies elsewhere.

    A path that is there means itself: a file, or a folder with nothing but parquet parts (see :func:`part_names`). One that
    is not there and ends in ``.parquet`` may be a pattern with ``* ? [ ]`` and ``**`` for any folders, of which files are
    taken in order of their paths, marks left out as in folders.

    Raises:
        DataError: nothing is there, or a folder that holds other things.
    """
    try:
        place = place_of(source)
        return None if isinstance(place, str) else _parquet_files(place, what)
    except DiffGRMError:
        raise
    except DAMAGE as error:
        raise DataError(f"the {what} file {source} could not be read: {error}") from error


def place_of(source: str | PathLike[str]) -> Path | str:
    """The path of something here, or the address of something elsewhere."""
    path, address = Path(source), ADDRESS.fullmatch(str(source))
    if address is None or path.exists():
        return path
    return Path("/", address[2]) if address[1] == "file" else f"{address[1]}://{address[2]}"


def _parquet_files(path: Path, what: str) -> ParquetTable | None:
    if path.is_dir():
        names = part_names(path, {entry.name: entry.is_file() for entry in path.iterdir()}, what)
        return ParquetTable(str(path), {name: path / name for name in names}, what)
    is_parquet = path.name.lower().endswith(PARQUET)
    if path.is_file():
        return ParquetTable(str(path), {path.name: path}, what) if is_parquet else None
    if not is_parquet or not glob.has_magic(str(path)):
        raise DataError(f"there is no {what} file {path}")
    root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    found = sorted(match for match in root.glob(str(path.relative_to(root))) if not match.name.startswith((".", "_")))
    if not found:
        raise DataError(f"there is no {what} file {path}, and as a pattern it fits no file")
    if folders := [match for match in found if not match.is_file()]:
        raise DataError(
            f"the pattern {path} of the {what} fits folders: {first_few(folders)}; let it fit the files, for example "
            f"{folders[0]}/*.parquet"
        )
    return ParquetTable(str(path), {str(match): match for match in found}, what)


def _at_address(address: str, what: str) -> pl.DataFrame:
    """The table of a file, or of a folder of parquet parts, of a file system of fsspec.

    Raises:
        DataError: whatever that file system says, in its words; and see :func:`read_file`.
    """
    on_web = address.startswith(("http:", "https:"))  # where a query may follow a name, and folders cannot be listed
    name = (address.split("?")[0] if on_web else address).rstrip("/").rsplit("/", 1)[-1]
    packings, kind = _formats(name)
    if not kind and packings != [".zip"] and (on_web or Path(name).suffix):
        raise _unknown_format(name, what)
    entries = None
    with _asking(address, what):
        system, place = fsspec.url_to_fs(address)  # one address; patterns are not expanded
        if not on_web and not packings and kind in ("", PARQUET) and system.isdir(place):
            entries = [entry for entry in system.ls(place, detail=True) if entry["name"].rstrip("/") != place.rstrip("/")]

    def content(path: str) -> bytes:
        with _asking(address, what):
            found: bytes = system.cat_file(path)
        return found

    if entries is None:
        return _parsed(name, lambda: content(place), what)
    found = {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}
    readers = {
        name: partial(lambda path: pl.read_parquet(io.BytesIO(content(path))), entry["name"])
        if entry["type"] == "file"
        else None
        for name, entry in found.items()
    }
    return _parts(address, readers, what)


@contextmanager
def _asking(address: str, what: str) -> Iterator[None]:
    """Let whatever a file system says in the block be an error of the address.

    Raises:
        DataError: it says something.
    """
    try:
        yield
    except ImportError as error:
        raise DataError(f"the {what} {address} needs a package more: {error}; or copy the file here first") from error
    except Exception as error:  # every file system of fsspec has errors of its own
        raise DataError(
            f"the {what} {address} could not be read: {type(error).__name__}: {error}; check the address and the rights to "
            "it, or copy the file here first"
        ) from error


def _formats(name: str) -> tuple[list[str], str]:
    """How a file is packed, the outermost first, and its format, ``""`` where that is unknown."""
    name = name.lower()
    packings: list[str] = []
    while (suffix := Path(name).suffix) in PACKED:
        name, packings = name.removesuffix(suffix), [*packings, suffix]
    return packings, suffix if suffix in (PARQUET, *TEXTS) else ""


def _unknown_format(name: str, what: str) -> DataError:
    return DataError(
        f"the {what} file {name} has an unknown format; known: {', '.join((PARQUET, *TEXTS))}, each of them also "
        f"{', '.join(PACKED)}; and folders of parquet files. Name a table in text .csv or .tsv; unpack an archive of "
        "several files and name one; write others as parquet, for example with "
        'polars.read_excel("x.xlsx").write_parquet("x.parquet")'
    )


def _parsed(name: str, content: Callable[[], bytes], what: str) -> pl.DataFrame:
    """The table of a file by its name (of a ``.zip`` that tells no more, by the name of the file in it).

    The content is had only if the name tells a known format.
    """
    packings, kind = _formats(name)
    if not kind and packings == [".zip"]:
        member, inside = _only_member(content())
        name, content = f"{name}: {member}", lambda: inside
        packings, kind = _formats(member)
    if not kind:
        raise _unknown_format(name, what)
    found = content()
    for packing in packings:
        try:
            found = PACKED[packing](found)
        except DiffGRMError:
            raise
        except DAMAGE as error:
            hint = f"if it is not packed, give it a name without {packing}"
            raise DataError(f"the {what} file {name} could not be read as {packing}: {error}; {hint}") from error
    if not found.removeprefix(codecs.BOM_UTF8).strip():
        raise DataError(f"the {what} file {name} is empty: expected a table with at least one row")
    if kind == PARQUET:
        return pl.read_parquet(io.BytesIO(found))
    if other := next((other for beginning, other in BEGINNINGS.items() if found.startswith(beginning)), ""):
        raise DataError(f"the {what} file {name} is no text, it begins as {other} files do; let its name end in {other}")
    return TEXTS[kind](found, f"the {what} file {name}")


def part_names(folder: str | Path, names: Mapping[str, bool], what: str) -> list[str]:
    """The parquet files of a folder, in order; files whose names begin with ``.`` or ``_`` are marks, not parts.

    Args:
        names: whether each is a file.

    Raises:
        DataError: files of other kinds, folders, or no parquet file.
    """
    names = {name: names[name] for name in sorted(names) if not name.startswith((".", "_"))}
    parts = [name for name, is_file in names.items() if is_file and name.lower().endswith(PARQUET)]
    if others := [name for name in names if name not in parts]:
        raise DataError(
            f"the {what} {folder} is a folder that holds not only parquet files: {first_few(others)}; name one file, put "
            "the parts into a folder of their own, or write one file, for example with "
            f'polars.scan_parquet("{folder}/**/*.parquet").sink_parquet("x.parquet") or polars.scan_csv and sink_csv'
        )
    if not parts:
        raise DataError(f"the {what} {folder} is a folder without parquet files; name a file")
    return parts


def _parts(folder: str | Path, entries: Mapping[str, Callable[[], pl.DataFrame] | None], what: str) -> pl.DataFrame:
    """All parquet files of a folder as one table.

    Args:
        entries: how each file is read, by its name; None for folders.
    """
    parts = part_names(folder, {name: read is not None for name, read in entries.items()}, what)
    return joined(folder, {name: read() for name in parts if (read := entries[name]) is not None}, what)


def _only_member(content: bytes) -> tuple[str, bytes]:
    """Name and content of the only file of a zip file; what macOS puts beside it is passed over.

    Raises:
        DataError: more files, or none.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [member for member in archive.infolist() if not member.is_dir()]
        members = [m for m in files if not m.filename.startswith("__MACOSX/") and not Path(m.filename).name.startswith(".")]
        if len(members) != 1:
            names = first_few(member.filename for member in members)
            raise DataError(f"a zip file must hold one file, found {len(members)}: {names}; unpack it and name the file")
        return members[0].filename, archive.read(members[0])


def _zstd(content: bytes) -> bytes:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "pandas", "reading .zst (or unpack it: zstd -d FILE)") from error
    return pyarrow.CompressedInputStream(io.BytesIO(content), "zstd").read()
