"""Run the code of pages, so that what they show is true; ``--write`` puts what it prints into them.

    python docs/run_pages.py docs/start.md                # runs it, says what differs
    python docs/run_pages.py --write docs/tutorials/*.md  # makes outputs anew

Blocks of such a page run in order, in one namespace, in an empty folder:

* A block with a title, such as ``python title="my_part.py"`` or ``yaml title="suite.yaml"``, is a file: it is written.
* ``python``: statements.
* ``sh``: commands of ``diffgrm``, a line each, run in this process.
* ``text`` is what the block before it printed; ``...`` stands for anything. With ``title="for example"`` it is an example:
  numbers of a training that differ from machine to machine, which nothing is compared with.

All others, such as ``console``, are only shown.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

BLOCK = re.compile(r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<code>.*?)^```$", flags=re.M | re.S)
EXAMPLE = "for example"
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what it is, its title, its lines, where they stand, and the number of the first."""

    kind: str
    title: str | None
    code: str
    span: tuple[int, int]
    line: int


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page of Markdown, in order."""
    found = []
    for block in BLOCK.finditer(page):
        line = page.count("\n", 0, block.start("code")) + 1
        found.append(Block(block["kind"], block["title"], block["code"], block.span("code"), line))
    return found


def run(block: Block, page: Path, names: dict[str, object]) -> str:
    """Run a block that is a file, ``python`` or ``sh``; gives what it printed.

    Raises:
        ValueError: a line of ``sh`` that is no command of diffgrm.
        RuntimeError: a command that ends with an error.
    """
    if block.title is not None:
        Path(block.title).write_text(block.code, encoding="utf-8")
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if block.kind == "python":
            code = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's own lines
            exec(compile(code, str(page), "exec"), names)
        else:
            for line in block.code.replace("\\\n", " ").splitlines():
                command(line, page)
    return printed.getvalue()


def command(line: str, page: Path) -> None:
    """Run one line of a block of ``sh``."""
    from diffgrm.apps.cli.main import main

    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "diffgrm":
        raise ValueError(f"{page}: {line!r} is no command of diffgrm; show other commands in a block of 'console'")
    with patch.object(sys, "argv", words):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{page}: {line!r} ended with {end.code}") from end


def pairs(page: Path) -> Iterator[tuple[Block, Block | None, str]]:
    """Run a page in the folder at hand: each block that runs, the ``text`` after it or None, and what it printed."""
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    for place, block in enumerate(blocks):
        if block.kind in ("python", "sh") or block.title not in (None, EXAMPLE):
            after = blocks[place + 1] if place + 1 < len(blocks) else None
            yield block, after if after is not None and after.kind == "text" else None, run(block, page, names)


def differences(page: Path) -> list[str]:
    """Run a page in the folder at hand: what it says is printed and is not."""
    found = []
    for block, said, printed in pairs(page):
        if said is not None and said.title != EXAMPLE and not same(said.code, printed):
            found.append(f"{page}, line {block.line}: the page says\n{said.code}\nprinted is\n{printed}")
    return found


def same(said: str, printed: str) -> bool:
    """Whether a text, in which ``...`` stands for anything, tells what was printed, whatever the spaces."""
    return doctest.OutputChecker().check_output(said, printed, LOOSE)


def rewritten(page: Path) -> str:
    """Run a page in the folder at hand: the page with what is printed now, where its own text does not tell it."""
    text, done, pieces = page.read_text(encoding="utf-8"), 0, list[str]()
    for _, said, printed in pairs(page):
        if said is not None and (said.title == EXAMPLE or not same(said.code, printed)):
            clean = "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())
            pieces += [text[done : said.span[0]], clean]
            done = said.span[1]
    return "".join([*pieces, text[done:]])


@contextlib.contextmanager
def place(folder: Path) -> Iterator[None]:
    """Pages run here: modules of the folder can be imported, tables are as wide as a page."""
    wide = {"COLUMNS": "100", "POLARS_TABLE_WIDTH": "100", "NO_COLOR": "1"}
    modules = set(sys.modules)
    with contextlib.chdir(folder), patch.dict(os.environ, wide), patch.object(sys, "path", [str(folder), *sys.path]):
        try:
            yield
        finally:
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[name]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run the pages."""
    parser = argparse.ArgumentParser(description="Run the code of pages.")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="put what is printed into the pages")
    given = parser.parse_args(arguments)
    failed = []
    for page in [page.resolve() for page in given.pages]:
        with tempfile.TemporaryDirectory() as folder, place(Path(folder)):
            if given.write:
                page.write_text(rewritten(page), encoding="utf-8")
            else:
                failed += differences(page)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
