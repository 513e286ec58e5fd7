"""Files as frames: every known format, and a path that means itself, whatever ``[ ] ? *`` are in it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import fsspec
import polars as pl

from diffgrm.data.delimited import read_delimited
from diffgrm.data.json_rows import read_json_rows
from diffgrm.foundation.schema import DataError, MissingExtraError, first_few

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
    ".zip": lambda content: _only_member(content),
}
DAMAGE = (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError)
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])(.+)", re.DOTALL)  # pathlib makes one slash of two


def read_parquet(path: Path) -> pl.DataFrame:
    """The parquet file of this very path, in which ``[ ] ? *`` mean themselves."""
    return pl.read_parquet(path.absolute(), glob=False)


def read_file(source: str | PathLike[str], what: str) -> pl.DataFrame:
    """A table from a file, a folder of parquet parts (in order of their names), or an address that fsspec opens.

    Text formats give texts only, so ``007`` keeps its zeros; in JSON, values have their own types.

    Args:
        what: how messages call the table.

    Raises:
        DataError: no such file, unknown format, or a damaged file, with the lines that cannot be read.
        MissingExtraError: a packing that needs a package.
    """
    path, address = Path(source), ADDRESS.fullmatch(str(source))
    try:
        if path.is_dir():
            return _parts(path, what)
        if path.is_file():
            if path.name.lower().endswith(PARQUET):
                return read_parquet(path)
            return _parsed(path.name, path.read_bytes, what)
        if address is None:
            raise DataError(f"there is no {what} file {path}")
        source = f"{address[1]}://{address[2]}"
        return _parsed(source.rsplit("/", 1)[-1], lambda: _fetched(str(source)), what)
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"the {what} {source} needs a package more: {error}; or copy the file here first") from error
    except DAMAGE as error:
        raise DataError(f"the {what} file {source} could not be read: {error}") from error


def _parsed(name: str, content: Callable[[], bytes], what: str) -> pl.DataFrame:
    """The table of a file by its name, whose content is had only if the name tells a known format."""
    inner = name.lower()
    packings: list[str] = []
    while (suffix := Path(inner).suffix) in PACKED:
        inner, packings = inner.removesuffix(suffix), [*packings, suffix]
    suffix = Path(inner).suffix
    if suffix not in (PARQUET, *TEXTS):
        packed = f", each of them also {', '.join(PACKED)}"
        raise DataError(
            f"the {what} file {name} has an unknown format; known: {', '.join((PARQUET, *TEXTS))}{packed}; and folders of "
            "parquet files"
        )
    found = content()
    for packing in packings:
        found = PACKED[packing](found)
    return pl.read_parquet(io.BytesIO(found)) if suffix == PARQUET else TEXTS[suffix](found, f"the {what} file {name}")


def _parts(folder: Path, what: str) -> pl.DataFrame:
    """All parquet files of a folder as one table; files whose names begin with ``.`` or ``_`` are marks, not parts."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    parts = [path for path in entries if path.is_file() and path.name.lower().endswith(PARQUET)]
    if others := [path.name for path in entries if path not in parts]:
        raise DataError(
            f"the {what} {folder} is a folder that holds not only parquet files: {first_few(others)}; name one file, or "
            "put the parts into a folder of their own"
        )
    if not parts:
        raise DataError(f"the {what} {folder} is a folder without parquet files; name a file")
    tables = [read_parquet(path) for path in parts]
    for path, table in zip(parts, tables, strict=True):
        if set(table.columns) != set(tables[0].columns):
            raise DataError(
                f"the parts of the {what} {folder} differ: {parts[0].name} has the columns {tables[0].columns}, "
                f"{path.name} has {table.columns}; give them the same"
            )
    return pl.concat([table.select(tables[0].columns) for table in tables], how="vertical_relaxed")


def _fetched(address: str) -> bytes:
    with fsspec.open(address, "rb") as file:  # one address; patterns are not expanded
        return file.read()


def _only_member(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            names = first_few(member.filename for member in members)
            raise DataError(f"a zip file must hold one file, found {len(members)}: {names}; unpack it and name the file")
        return archive.read(members[0])


def _zstd(content: bytes) -> bytes:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "pandas", "reading .zst (or unpack it: zstd -d FILE)") from error
    return pyarrow.CompressedInputStream(io.BytesIO(content), "zstd").read()
