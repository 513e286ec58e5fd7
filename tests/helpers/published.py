"""Files as publishers of datasets send them, and what is looked at in a dataset that was made of them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile


def gzip_lines(lines, write=json.dumps):
    """A packed file of one object a line."""
    return gzip.compress("".join(write(line) + "\n" for line in lines).encode())


def json_lines(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def zipped(files):
    """A zip archive of path -> bytes or text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, mode="w"):
    """A tar archive of path -> bytes; ``w:gz`` packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def sizes(dataset):
    return dataset.n_users, dataset.n_items, len(dataset.events.values)


def events(dataset):
    """User -> (item, time) of each of its events, in order."""
    found = {}
    for user, item, time in dataset.event_table().iter_rows():
        found.setdefault(user, []).append((item, time))
    return found


def column(dataset, name):
    """Item -> its value in a column."""
    return dict(zip(dataset.item_table["item_id"], dataset.item_table[name].to_list(), strict=True))
