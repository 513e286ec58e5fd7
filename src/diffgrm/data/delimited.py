"""Text tables: csv, tsv, and what is written like them."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl

from diffgrm.data.columns import unique_names
from diffgrm.foundation.schema import DataError, bullet_list

logger = logging.getLogger(__name__)

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
QUOTED = r'^"((?:[^"]|"")*)"$'
INSIDE = r'"[^"]*+(?:""[^"]*+)*+'  # of a field in quotation marks, whose last one follows
QUOTED_FIELD = re.compile(rf'(?<![^,\t;|\n]){INSIDE}"(?![^,\t;|\n])')
CUT_FIELD = re.compile(rf"(?<![^,\t;|\n]){INSIDE}\Z")
FIRST_LINES, FIRST_BYTES = 64, 1 << 20  # by which the separator is chosen, whichever are fewer
SHOWN = 5
CSV_LIMIT = threading.Lock()  # of a field's length: Python has one for all threads


def utf8(content: bytes, where: str) -> bytes:
    """A text file's bytes as UTF-8 without byte order mark.

    Raises:
        DataError: another encoding than UTF-8 or UTF-16, with the line.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}; save it as UTF-8, for example "
            "with: iconv -f latin1 -t utf-8"
        ) from error
    return content


def read_delimited(content: bytes, usual: str, where: str) -> pl.DataFrame:
    """A table with a header line, all values as text; empty ones are null.

    The separator is that of comma, tab, semicolon and pipe by which most of the first lines have the fields of the header.
    Blank lines are passed over. A field in quotation marks may hold separators, line ends, and quotation marks written
    twice. Where every line has all its fields, and tabs separate them or the quotation marks fit no other reading, lines
    are rows, and quotation marks around no whole field mean themselves.

    Args:
        usual: the separator that the file's name tells.
        where: how messages call the file.

    Raises:
        DataError: no header, or lines with too few or too many fields or open quotation marks, with their numbers.
    """
    content = utf8(content, where).replace(b"\r\n", b"\n")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    content = content if content.endswith(b"\n") else content + b"\n"
    separator = _separator(content, usual, where)
    even_lines = _lines_are_rows(content, separator)
    if even_lines and (separator == "\t" or _no_field_is_longer(content, separator)):
        return _read_lines(content, separator)
    rows, ragged, open_quote = _quoted_rows(content.decode(), separator)
    if open_quote and even_lines and not ragged:
        return _read_lines(content, separator)
    if problems := [*ragged, *open_quote]:
        more = [f"and {len(problems) - SHOWN} lines more"] if len(problems) > SHOWN else []
        raise DataError(
            f"{where} (separated by {SEPARATORS[separator]}s) could not be read:\n{bullet_list(problems[:SHOWN] + more)}"
        )
    names = _names(rows[0] if rows else [])
    columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * len(names)
    return pl.DataFrame(
        {n: pl.Series([value or None for value in c], dtype=pl.String) for n, c in zip(names, columns, strict=True)}
    )


def _separator(content: bytes, usual: str, where: str) -> str:
    content = content.lstrip(b" \r\n\x0b\x0c")
    first = QUOTED_FIELD.sub("", content[:FIRST_BYTES].decode(errors="ignore"))
    first = CUT_FIELD.sub("", first) if len(content) > FIRST_BYTES else first
    header, *lines = first.split("\n", FIRST_LINES)[:FIRST_LINES]

    def fit(separator: str) -> tuple[int, int]:
        """Lines that have as many of a separator as the header, and how many it has; none where it has none."""
        wanted = header.count(separator)
        return (sum(line.count(separator) == wanted for line in lines) if wanted else -1), wanted

    best = max([usual, *SEPARATORS], key=fit)  # the usual one where others fit as well
    if best != usual:
        logger.info("%s is read as separated by %ss", where, SEPARATORS[best])
    return best


def _in_each(data: np.ndarray, ends: np.ndarray, character: str) -> np.ndarray:
    """How often a character is in each piece, of those that end there."""
    return np.diff(np.searchsorted(np.flatnonzero(data == ord(character)), ends), prepend=0)


def _lines_are_rows(content: bytes, separator: str) -> bool:
    """Whether every line that is not blank has as many separators as the first."""
    data = np.frombuffer(_without_blank_lines(content, separator), np.uint8)
    return len(np.unique(_in_each(data, np.flatnonzero(data == ord("\n")), separator))) == 1


def _no_field_is_longer(content: bytes, separator: str) -> bool:
    """Whether quotation marks hold no separator and no line end: each piece that begins with one has them in pairs."""
    if b'"' not in content:
        return True
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero((data == ord(separator)) | (data == ord("\n")))
    quoted = data[np.append(0, ends[:-1] + 1)] == ord('"')
    return not (_in_each(data, ends, '"')[quoted] % 2).any()


def _without_blank_lines(content: bytes, separator: str) -> bytes:
    white = b" \r\x0b\x0c" if separator == "\t" else b" \t\r\x0b\x0c"
    return re.sub(rb"(?m)^[" + white + rb"]*\n", b"", content)


def _read_lines(content: bytes, separator: str) -> pl.DataFrame:
    header, _, rows = _without_blank_lines(content, separator).partition(b"\n")
    names = [re.sub(QUOTED, lambda found: found[1].replace('""', '"'), name) for name in header.decode().split(separator)]
    names = _names(names)
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    table = pl.read_csv(
        rows, separator=separator, has_header=False, new_columns=names, infer_schema=False, quote_char=None, glob=False
    )
    if b'"' in rows:
        inside = pl.all().str.extract(QUOTED).str.replace_all('""', '"', literal=True)
        table = table.with_columns(pl.when(pl.all().str.contains(QUOTED)).then(inside).otherwise(pl.all()))
        table = table.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return table


def _quoted_rows(text: str, separator: str) -> tuple[list[list[str]], list[str], list[str]]:
    """The rows (the header first), and what is wrong: with their numbers of fields, and with a quotation mark, if any."""
    reader = csv.reader(io.StringIO(text.replace("\r", " "), newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    ragged, before = [], 0
    try:
        with _fields_as_long_as(text):
            for row in reader:
                line, before = before + 1, reader.line_num
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if rows and len(row) != len(rows[0]):
                    ragged.append(f"line {line} has {len(row)} fields; expected {len(rows[0])} ({', '.join(rows[0])})")
                rows.append(row)
    except csv.Error:
        problem = (
            f"line {before + 1} begins a field with a quotation mark that does not end it; close it, write quotation marks "
            'inside it twice (""), and put nothing between its end and the separator'
        )
        return rows, ragged, [problem]
    return rows, ragged, []


@contextmanager
def _fields_as_long_as(text: str) -> Iterator[None]:
    """Let :mod:`csv` read fields as long as a text in the block."""
    with CSV_LIMIT:
        usual = csv.field_size_limit()
        csv.field_size_limit(max(usual, min(len(text), 2**31 - 1)))
        try:
            yield
        finally:
            csv.field_size_limit(usual)


def _names(header: list[str]) -> list[str]:
    return unique_names(name.strip() for name in header)
