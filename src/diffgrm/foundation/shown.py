"""Texts of others, as a terminal and a markdown file show them: nothing in them is obeyed."""

from __future__ import annotations

import re

COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # controls, lines, directions, halves
MARKS = re.compile(r"[\\`*_\[\]<>&|~#$]")


def visible(value: object) -> str:
    r"""A value as one line of text in which nothing drives a terminal: control characters are escaped.

    Line ends, marks that turn the direction of writing and halves of surrogate pairs are escaped too.

    >>> print(visible("red \x1b[31m, bell \a, two\nlines, [b], :smile:"), visible(None), visible([1, "a"]))
    red \x1b[31m, bell \x07, two\nlines, [b], :smile: None [1, 'a']
    """
    return COMMANDS.sub(lambda found: ascii(found.group())[1:-1], str(value))


def unbroken_text(text: str) -> str:
    r"""A text that can be written as UTF-8: halves of surrogate pairs are escaped.

    >>> print(unbroken_text("a \ud800 of é"))
    a \ud800 of é
    """
    return text.encode("utf-8", "backslashreplace").decode()


def visible_lines(text: str) -> str:
    """A text of several lines, each as :func:`visible` gives it."""
    return "\n".join(map(visible, text.split("\n")))


def markdown(value: object) -> str:
    r"""A value as one line of markdown that shows it as it is, also in a cell of a table.

    >>> print(markdown("<b>x</b> | [a](b)\n# c"))
    \<b\>x\</b\> \| \[a\](b)\\n\# c
    """
    return MARKS.sub(lambda found: f"\\{found.group()}", visible(value))


def fenced(text: str, language: str) -> list[str]:
    """The lines of a markdown code block, which nothing in the text ends."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, text, fence]
