"""Files are read literally, in every format that is known, and told about where they cannot be."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import re
import tracemalloc
import zipfile
from pathlib import Path

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from diffgrm import read_table
from diffgrm.data import delimited, files
from diffgrm.data.blocks import open_rows
from diffgrm.data.delimited import read_delimited
from diffgrm.data.tables import read_interactions, read_items
from diffgrm.foundation.schema import DataError

TABLE = pl.DataFrame({"item_id": ["007", "b"], "text": ["first, thing", 'second "thing"']})
TEXT_FORMS = {
    ".csv": TABLE.write_csv().encode(),
    ".tsv": TABLE.write_csv(separator="\t").encode(),
    ".jsonl": TABLE.write_ndjson().encode(),
    ".ndjson": TABLE.write_ndjson().encode(),
    ".json": TABLE.write_json().encode(),
}


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside", content)
    return buffer.getvalue()


PACKINGS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".zip": zipped,
}


@pytest.fixture
def put(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", TEXT_FORMS)
def test_every_format_in_every_packing_reads_the_same(put, suffix, packing):
    assert read_table(put(f"items{suffix}{packing}", PACKINGS[packing](TEXT_FORMS[suffix]))).equals(TABLE)


def test_json_may_be_lines_or_a_list_and_no_other_object(put):
    assert read_table(put("reviews.json.gz", gzip.compress(TEXT_FORMS[".jsonl"]))).equals(TABLE)
    assert read_table(put("pretty.jsonl", json.dumps(TABLE.to_dicts(), indent=1))).equals(TABLE)
    row = {"item_id": "a", "text": ["x"], "more": {}}
    assert read_table(put("row.json", json.dumps(row))).to_dicts() == [row | {"more": {}}]
    whole = "one JSON object that holds the whole table; expected one object a line, or one list of objects, as pandas"
    columns, frame = TABLE.to_dict(as_series=False), pd.DataFrame(TABLE.to_dicts())
    tables = [frame.to_json(orient=orient) for orient in ("columns", "split", "index", "table")]
    for content in (*tables, json.dumps(columns), json.dumps(columns, indent=1), json.dumps({"items": [row]}) + "\n"):
        with pytest.raises(DataError, match=whole):
            read_table(put("one.json", content))
    with pytest.raises(DataError, match="a JSON list, but its entry 1 is 5; expected an object a row"):
        read_table(put("list.json", '[{"a": 1}, 5]'))
    with pytest.raises(DataError, match="is not a JSON list"):
        read_table(put("broken.json", '[{"a": 1}'))


def test_lines_that_are_not_json_are_all_numbered(put):
    with pytest.raises(DataError) as error:
        read_table(put("x.jsonl", '{"a": 1}\n\n{"a":\n[1]\n' + "no\n" * 9))
    assert "line 3 is not JSON" in str(error.value) and "line 4 is [1]; expected an object" in str(error.value)
    assert "and 6 lines more" in str(error.value)


# ---- paths ----------------------------------------------------------------------------------------------------------

STRANGE = ["events?", "events*", "lr[0.1]", "[!a]", "{a,b}", "a b", "#1", "100%", "~", "\u5546\u54c1"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("suffix", [".parquet", *TEXT_FORMS])
def test_a_path_means_itself(tmp_path, put, name, suffix):
    for place in (tmp_path, tmp_path / name):
        place.mkdir(exist_ok=True)
        decoys = [place / f"{other}{suffix}" for other in ("events1", "lr0", "a", "b")]
        for path in [*decoys, place / f"{name}{suffix}"]:
            table = TABLE if path not in decoys else TABLE.head(1)
            table.write_parquet(path) if suffix == ".parquet" else path.write_bytes(TEXT_FORMS[suffix])
        assert read_table(place / f"{name}{suffix}").equals(TABLE)
        assert read_table(str(place / f"{name}{suffix}")).equals(TABLE)


@pytest.mark.parametrize("name", ["events?.csv", "*.csv", "[a-z]*.csv", "x" * 5000 + ".csv", "a\0b.csv"])
def test_a_pattern_is_no_file(put, name, tmp_path):
    put("events.csv", TEXT_FORMS[".csv"])
    with pytest.raises(DataError, match="there is no table file|could not be read"):
        read_table(tmp_path / name)


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20)


@given(names.filter(lambda name: len(name.encode()) < 200))
def test_any_name_of_a_file_is_read(name):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        path.write_bytes(TEXT_FORMS[".csv"])
        assert read_table(path).equals(TABLE)


def test_a_folder_of_parquet_parts_is_one_table(tmp_path):
    folder = tmp_path / "items[1].parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for row in (0, 1):
        TABLE[row].select("text", "item_id").write_parquet(folder / f"part-{row}[?].parquet")
    assert read_table(folder).select(TABLE.columns).equals(TABLE)
    TABLE.rename({"text": "name"}).write_parquet(folder / "part-2.parquet")
    with pytest.raises(DataError, match=r"differ: part-0.*\['text', 'item_id'\], part-2.*\['item_id', 'name'\]"):
        read_table(folder)
    (folder / "notes.txt").touch()
    with pytest.raises(DataError, match="holds not only parquet files: notes.txt; name one file"):
        read_table(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is a folder without parquet files; name a file"):
        read_table(tmp_path / "empty")


SECONDS = pl.Series([1_700_000_000])
MOMENT = SECONDS.cast(pl.Datetime)


@pytest.mark.parametrize(
    "others",
    [
        [MOMENT, SECONDS.cast(pl.Float64), SECONDS.cast(pl.String), MOMENT.cast(pl.Date)],
        [MOMENT.dt.replace_time_zone("UTC"), MOMENT, SECONDS],
        [MOMENT.cast(pl.Date), SECONDS],
        [SECONDS.cast(pl.Duration), SECONDS, MOMENT],
        [pl.Series([datetime.time(9)]), SECONDS, MOMENT],
        [pl.Series([True]), SECONDS, pl.Series(["true"])],
    ],
    ids=lambda others: str(others[0].dtype),
)
def test_parts_whose_times_are_of_different_kinds_are_refused(tmp_path, others):
    column, *others = others
    for other in others:
        for folder, first, second in ((tmp_path / "a", column, other), (tmp_path / "b", other, column)):
            folder.mkdir(exist_ok=True)
            for name, times in (("x.parquet", first), ("y.parquet", second)):
                pl.DataFrame({"user_id": ["u"], "timestamp": times}).write_parquet(folder / name)
            told = re.escape(f"  - timestamp: {first.dtype} in x.parquet, {second.dtype} in y.parquet")
            with pytest.raises(DataError, match=f"differ in the types of their columns; give them the same:\n{told}$"):
                read_table(folder)
            with pytest.raises(DataError, match=told):
                next(open_rows(folder).blocks(["timestamp"]))
            system = fsspec.filesystem("memory")
            system.put(f"{folder}/", f"/kinds{folder}/", recursive=True)
            with pytest.raises(DataError, match=told):
                read_table(f"memory://kinds{folder}")


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (pl.Int64, pl.Int32, pl.Int64),
        (pl.Int32, pl.Float64, pl.Float64),
        (pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ms")),
        (pl.Null, pl.Datetime("us"), pl.Datetime("us")),
        (pl.Date, pl.Null, pl.Date),
    ],
)
def test_parts_of_one_kind_are_joined(tmp_path, first, second, joined):
    values = [0 if kind != pl.Null else None for kind in (first, second)]
    for name, kind, value in (("x", first, values[0]), ("y", second, values[1])):
        pl.DataFrame({"timestamp": pl.Series([value]).cast(kind)}).write_parquet(tmp_path / f"{name}.parquet")
    assert read_table(tmp_path)["timestamp"].to_list() == pl.Series(values).cast(joined).to_list()
    assert open_rows(tmp_path).header.schema["timestamp"] == joined


def test_addresses_are_opened_by_fsspec_and_mean_themselves(tmp_path):
    for name in ("x[1].csv", "x1.csv", "y.parquet"):
        with fsspec.open(f"memory://{name}", "wb") as file:
            file.write(TEXT_FORMS[".csv"] if "[" in name else b"a\n1\n")
    assert read_table("memory://x[1].csv").equals(TABLE)
    assert read_table(Path("memory://x[1].csv")).equals(TABLE)  # pathlib makes one slash of two
    with pytest.raises(DataError, match="could not be read"):
        read_table("memory://nowhere.csv")
    with pytest.raises(DataError, match="needs a package more: .*; or copy the file here first|could not be read"):
        read_table("s3://bucket/x.csv")
    with pytest.raises(DataError, match=r"x\.sqlite has an unknown format; known: \.parquet, .*\.zip; and folders"):
        read_table("s3://bucket/x.sqlite")


def in_memory(name: str, content: bytes) -> None:
    with fsspec.open(f"memory://{name}", "wb") as file:
        file.write(content)


def parquet() -> bytes:
    buffer = io.BytesIO()
    TABLE.write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["lake/items", "lake/items.parquet"])
def test_a_folder_of_parquet_parts_may_lie_at_an_address(name):
    for part in ("part-0.parquet", "part-1.PARQUET", "_SUCCESS", ".crc"):
        in_memory(f"/{name}/{part}", parquet() if "part" in part else b"")
    for address in (f"memory://{name}", f"memory://{name}/", Path(f"memory://{name}")):
        assert read_table(address).equals(pl.concat([TABLE, TABLE]))
    in_memory(f"/{name}/day=1/part-2.parquet", parquet())
    with pytest.raises(DataError, match="a folder that holds not only parquet files: day=1; name one file, put the parts"):
        read_table(f"memory://{name}")


def test_addresses_of_files_here_are_those_files(tmp_path, put):
    path = put("x[1].json.gz", gzip.compress(TEXT_FORMS[".json"]))
    for address in (f"file://{path}", Path(f"file://{path}")):
        assert read_table(address).equals(TABLE)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "p.parquet").write_bytes(parquet())
    assert read_table(f"file://{tmp_path}/parts").equals(TABLE)
    with pytest.raises(DataError, match="there is no table file /nowhere.csv"):
        read_table("file:///nowhere.csv")


class Web(MemoryFileSystem):
    """Stands in for the web: one file, whatever the query, and errors of its own."""

    protocol = "https"

    def cat_file(self, path, **_):
        if "refused" in path:
            raise RuntimeError("403: not signed")
        return TEXT_FORMS[".csv"]

    def ls(self, path, **_):
        raise AssertionError("the web has no folders")


def test_what_a_file_system_says_is_told_with_a_way_out(monkeypatch):
    monkeypatch.setattr(fsspec, "url_to_fs", lambda address: (Web(), address))
    assert read_table("https://host/x.csv?signed=a/b.c").equals(TABLE)
    with pytest.raises(
        DataError, match=r"could not be read: RuntimeError: 403: not signed; check .*, or copy the file here"
    ):
        read_table("https://host/refused.csv")
    with pytest.raises(DataError, match="the table file x has an unknown format"):
        read_table("https://host/x?format=csv")


def test_a_fault_of_ours_is_not_told_as_one_of_the_file_system(monkeypatch):
    def broken(*_):
        raise AttributeError("a fault of ours")

    monkeypatch.setattr(fsspec, "url_to_fs", lambda address: (Web(), address))
    monkeypatch.setattr(files, "_parsed", broken)
    with pytest.raises(AttributeError, match="a fault of ours"):
        read_table("https://host/x.csv")


def test_a_zip_is_known_by_its_name_or_by_that_of_the_file_in_it(put):
    for name, inside, content in (
        ("archive.zip", "folder/items.csv", TEXT_FORMS[".csv"]),
        ("archive.zip", "items.jsonl.gz", gzip.compress(TEXT_FORMS[".jsonl"])),
        ("items.PARQUET.ZIP", "data", parquet()),
        ("archive.zip", "items.parquet", parquet()),
    ):
        with zipfile.ZipFile(put(name, b""), "w") as archive:
            archive.mkdir("folder")
            archive.writestr(inside, content)
            archive.writestr("__MACOSX/folder/._items.csv", "what macOS adds")
            archive.writestr("folder/.DS_Store", "and puts in folders")
        assert read_table(archive.filename).equals(TABLE)
    with pytest.raises(DataError, match="the table file archive.zip: inside has an unknown format; known: .parquet"):
        read_table(put("archive.zip", zipped(b"x")))


def test_a_zip_with_a_password_is_told(put):
    content = bytearray(zipped(TEXT_FORMS[".csv"]))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DataError, match="could not be read as .zip: .*encrypted, password required"):
        read_table(put("t.csv.zip", bytes(content)))


@pytest.mark.parametrize("name", ["x.xlsx", "x.txt", "x.tar.gz", "x.csv.7z", "x", "x.feather"])
def test_other_formats_are_refused_with_what_to_do(put, name):
    with pytest.raises(DataError) as error:
        read_table(put(name, b"content"))
    said = str(error.value)
    assert f"the table file {name} has an unknown format; known: .parquet, .csv" in said
    assert "Name a table in text .csv or .tsv; unpack an archive" in said and 'write_parquet("x.parquet")' in said


@pytest.mark.parametrize("other", [".gz", ".bz2", ".zst", ".xz", ".zip", ".parquet"])
def test_a_file_that_is_not_what_its_name_says_is_told(put, other):
    content = parquet() if other == ".parquet" else PACKINGS[other](TEXT_FORMS[".csv"])
    for name in ("x.csv", "x.jsonl"):
        with pytest.raises(
            DataError, match=f"{name} is no text, it begins as {other} files do; let its name end in {other}"
        ):
            read_table(put(name, content))
    with pytest.raises(DataError, match="could not be read as .gz: .*; if it is not packed, give it a name without .gz"):
        read_table(put("x.csv.gz", TEXT_FORMS[".csv"]))


def test_a_zip_of_several_files_names_them(put):
    path = put("t.csv.zip", zipped(TEXT_FORMS[".csv"]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("second", "x")
    with pytest.raises(DataError, match="a zip file must hold one file, found 2: inside, second; unpack it"):
        read_table(path)


@pytest.mark.parametrize("packing", [packing for packing in PACKINGS if packing])
def test_a_damaged_packing_is_named(put, packing):
    with pytest.raises(DataError, match="could not be read"):
        read_table(put(f"t.csv{packing}", b"nonsense"))


# ---- text tables ----------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[tuple]:
    return read_table(path).rows()


def test_titles_that_begin_with_a_quotation_mark_swallow_no_rows(put):
    news = 'item_id\ttext\nN1\t"Best of" 2019\nN2\t"Open\nN3\tplain\nN4\t"Never closed\nN5\t"whole"\nN6\t6" pipe\n'
    wanted = ["N1", "N2", "N3", "N4", "N5", "N6"]
    table = read_table(put("news.tsv", news))
    assert table["item_id"].to_list() == wanted
    assert table["text"].to_list() == ['"Best of" 2019', '"Open', "plain", '"Never closed', "whole", '6" pipe']
    comma = read_table(put("news.csv", news.replace("\t", ",")))
    assert comma.equals(table)


def test_quoted_fields_hold_separators_and_lines(put):
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        text = f'item_id{separator}text\ni1{separator}"a{separator} ""b"""\n\n"i2"{separator}"two\n\nlines"\n'
        assert rows(put(f"q{suffix}", text)) == [("i1", f'a{separator} "b"'), ("i2", "two\n\nlines")]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (['item_id,"price, EUR",text', '7,"1,50",red ball', '8,"2,00",blue'], {"price, EUR": "1,50", "text": "red ball"}),
        (['"name, first",item_id', '"Smith, J",7'], {"name, first": "Smith, J"}),
        (['item_id,"say ""a, b""",c', '7,"""x"", y",z'], {'say "a, b"': '"x", y', "c": "z"}),
        (["item_id,size,text", '7,6", 7" pipe'], {"size": '6"', "text": ' 7" pipe'}),
        (["item_id,size,text", '7,"wide", "open'], {"size": "wide", "text": ' "open'}),
    ],
)
def test_a_quoted_field_holds_separators_where_every_line_has_as_many(put, lines, wanted):
    assert read_table(put("q.csv", "\n".join(lines))).row(0, named=True) == {"item_id": "7", **wanted}


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_which_reading_quotation_marks_have_is_told_by_the_separator(put, suffix):
    assert rows(put(f"e{suffix}", 'item_id,"a, b",text\n7,"1,5",x\n')) == [("7", "1,5", "x")]
    assert rows(put(f"t{suffix}", 'item_id\ttext\n7\t"open\n8\tx"\n')) == [("7", '"open'), ("8", 'x"')]


def test_marks_within_fields_are_read_by_lines(monkeypatch):
    monkeypatch.setattr(delimited, "_quoted_rows", None)
    table = read_delimited(b'item_id,size,text\n7,5" disk,3" disk\n8,"6"" disk",\'"\'\n', ",", "the file")
    assert table.rows() == [("7", '5" disk', '3" disk'), ("8", '6" disk', "'\"'")]


def test_a_line_whose_quoted_field_holds_the_missing_separator_is_told(put):
    with pytest.raises(DataError, match="line 2 has 2 fields; expected 3"):
        read_table(put("q.csv", 'item_id,text,c\n7,"a,b"\n'))


def test_fields_may_be_of_any_length(put):
    text = "A long description.\n" * 7000
    written = pl.DataFrame({"item_id": ["1", "2"], "text": [text, "short"]})
    before = csv.field_size_limit()
    assert read_table(put("long.csv", written.write_csv())).equals(written)
    assert csv.field_size_limit() == before


def test_short_tables_leave_other_readers_their_limit(put, monkeypatch):
    limits = [csv.field_size_limit()]
    monkeypatch.setattr(csv, "field_size_limit", lambda *new: [limits[-1], limits.extend(new)][0])
    assert rows(put("q.csv", 'item_id,text\n1,"a, b"\n')) == [("1", "a, b")]
    assert min(limits) == limits[0] == limits[-1]


def test_parse_trouble_is_told_in_our_words_with_all_lines(put):
    with pytest.raises(DataError) as error:
        read_table(put("r.csv", 'item_id,text,c\ni1,a\n\ni2,b,3,4\ni3,x,4\ni4,"a, b"\n'))
    said = str(error.value)
    assert "r.csv (separated by commas) could not be read" in said
    assert "line 2 has 2 fields; expected 3 (item_id, text, c)" in said and "line 4 has 4 fields" in said
    assert "line 6 has 2 fields" in said and "infer_schema" not in said and "truncate" not in said
    with pytest.raises(DataError, match="line 3 begins a field with a quotation mark that does not end it; close it"):
        read_table(put("o.csv", 'item_id,text\ni1,"a, b"\ni2,"open\ni3,x\n'))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_and_line_ends_do_not_matter(put, end):
    lines = ["", "item_id,text", "", "a,x", "   ", "b,", ""]
    assert rows(put("b.csv", end.join(lines))) == [("a", "x"), ("b", None)]
    assert rows(put("one.csv", end.join(["item_id", "a", "", "b"]))) == [("a",), ("b",)]


@pytest.mark.parametrize("separator", ",;|\t")
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_separator_is_recognised(put, separator, suffix):
    assert rows(put(f"s{suffix}", f"item_id{separator}text\na{separator}1.5 {separator * 0}kg\n")) == [("a", "1.5 kg")]


@pytest.mark.parametrize(
    ("name", "lines", "columns"),
    [
        ("h.tsv", ["item_id\ttext\tsize (h, w, d, kg)", "7\tred, blue\t3"], ["item_id", "text", "size (h, w, d, kg)"]),
        ("h.csv", ["item_id,text,a|b|c|d", '7,"red, blue",1'], ["item_id", "text", "a|b|c|d"]),
        ("h.csv", ["item_id;text;price, EUR", "7;red ball;1,50"], ["item_id", "text", "price, EUR"]),
        ("h.csv", ["item_id,a;b;c", "7,1"], ["item_id", "a;b;c"]),
        ("h.csv", ['item_id,"6"" pipe"', "7,1"], ["item_id", '6" pipe']),
        ("h.csv", ['item_id,6" pipe|x|y,"two', 'lines"', '7,1,"a', 'b"'], ["item_id", '6" pipe|x|y', "two\nlines"]),
    ],
)
def test_names_of_columns_may_hold_other_separators(put, name, lines, columns):
    table = read_table(put(name, "\n".join(lines) + "\n"))
    assert table.columns == columns and table["item_id"].to_list() == ["7"]


@pytest.mark.parametrize("lines", [70, 80_000])
def test_long_fields_do_not_choose_the_separator(put, lines):
    text = "one; line of text\n" * lines
    table = read_table(put("long.csv", f'doc_id,text;tags\n1,"{text}"\n2,short\n'))
    assert table.columns == ["doc_id", "text;tags"] and table.rows() == [("1", text), ("2", "short")]


def test_a_long_field_takes_no_more_memory_than_itself(put):
    content = b'item_id,text\n1,"' + b'x""' * 500_000 + b'"\n'
    tracemalloc.start()
    table = read_delimited(content, ",", "the file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table["text"].str.len_bytes().to_list() == [1_000_000] and peak < 10 * len(content)


def test_encodings_are_read_or_named(put):
    text = "item_id,text\na,caf\u00e9\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert rows(put("e.csv", text.encode(encoding))) == [("a", "caf\u00e9")]
    with pytest.raises(DataError, match="is not UTF-8: line 2 holds the byte 0xe9; save it as UTF-8"):
        read_table(put("latin.csv", text.encode("latin-1")))


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_file_without_anything_is_empty(put, content):
    for name in ("e.csv", "e.jsonl", "e.tsv"):
        with pytest.raises(DataError, match=rf"the table file \S*{name} is empty: expected a table with at least one row"):
            read_table(put(name, content))


def test_empty_ids_are_told_like_null_ones(put):
    with pytest.raises(DataError) as error:
        read_interactions(put("i.csv", 'user_id,item_id\nu,\n"",b\n,c\n'))
    assert "user_id is null in 2 rows (rows 1, 2)" in str(error.value)
    assert "item_id is null in 1 rows (rows 0)" in str(error.value)
    with pytest.raises(DataError, match=r"item_id is empty in 2 rows \(rows 0, 2\); drop or fill them"):
        read_interactions(pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["", "a", "  "]}))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from([",", "\t", ";", "|"]))
def test_what_is_written_by_the_rules_is_read_back(content, separator):
    table = pl.DataFrame(content, {"item_id": pl.String, "text": pl.String}, orient="row")
    written = table.write_csv(separator=separator, quote_style="always").encode()
    read = read_delimited(written, ",", "the file")
    assert read.equals(table.with_columns(pl.when(pl.all() != "").then(pl.all())))


@given(st.binary(max_size=60), st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz", ".csv.zip"]))
def test_any_bytes_are_read_or_refused_in_our_own_words(content, suffix):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(content)
        try:
            read_table(path)
        except DataError as error:
            assert "the table" in str(error) or "a zip file" in str(error)


# ---- columns nobody uses --------------------------------------------------------------------------------------------


def test_columns_nobody_uses_break_nothing(put, caplog):
    lines = [
        {"item_id": 1, "text": "x", "details": {}, "mixed": 1, "big": 2**64, "huge": 2**130, "deep": [["a"]]},
        {"item_id": 2, "text": "y", "details": {}, "mixed": "b", "big": 1, "huge": 1, "deep": ["b"]},
    ]
    for name, content in (("x.jsonl", "\n".join(map(json.dumps, lines))), ("x.json", json.dumps(lines))):
        table = read_items(put(name, content))
        assert table["item_id"].to_list() == [1, 2] and table["text"].to_list() == ["x", "y"]
        assert "left out: 'details'" in caplog.text
        table.write_parquet(put("kept.parquet", b""))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("prices", [[1, 2.5, None], [2.5, 1, None], [None, 1, 2.5]])
def test_whole_and_other_numbers_are_one_kind_in_any_order(put, name, prices):
    lines = [{"item_id": "a", "price": price} for price in prices]
    table = read_table(put(name, json.dumps(lines) if name == "x.json" else "\n".join(map(json.dumps, lines))))
    assert table.schema["price"] == pl.Float64 and table["price"].to_list() == prices


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_half_a_surrogate_pair_is_a_question_mark(put, name):
    texts = ["red \ud83d ball", "\udc00 tail", "whole \U0001f600", "all \U0001f600\U0001f600"]
    lines = [{"item_id": text, "n": n} for n, text in enumerate(texts)]
    table = read_table(put(name, json.dumps(lines) if name == "x.json" else "\n".join(map(json.dumps, lines))))
    assert table["item_id"].to_list() == ["red ? ball", "? tail", *texts[2:]] and table["n"].to_list() == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [2**63, 2**64 + 1, 2**126, 2**130])
def test_ids_beyond_64_bits_become_text(put, value):
    events = read_interactions(put("e.jsonl", f'{{"user_id": {value}, "item_id": 1}}\n{{"user_id": 3, "item_id": 1}}\n'))
    assert events["user_id"].to_list() == [str(value), "3"] and events["item_id"].to_list() == [1, 1]


def test_frames_of_pandas_with_strange_columns(caplog):
    frame = pd.DataFrame({"item_id": ["a", 7], "text": ["x", "y"], "object": [object(), None], "mixed": [1, "x"]})
    frame["truth"] = [True, 3]
    table = read_items(pd.concat([frame, frame[["mixed"]]], axis=1))
    assert table["item_id"].to_list() == ["a", "7"] and table["truth"].to_list() == ["True", "3"]
    assert table.columns == ["item_id", "text", "object", "mixed", "truth", "mixed_duplicated_0"]
    with pytest.raises(DataError, match="more than one column 'item_id'; keep one of them"):
        read_items(pd.concat([frame, frame[["item_id"]]], axis=1))


def test_columns_that_cannot_be_kept_are_told_when_read(caplog):
    frame = pl.DataFrame({"item_id": ["a"], "text": ["x"], "o": [object()], "s": [[{}]], "training_events": [9], "ok": [1]})
    assert read_items(frame).columns == ["item_id", "text", "ok"]
    assert "'o' (type Object)" in caplog.text and "'s'" in caplog.text and "'training_events'" in caplog.text


def test_whole_numbers_with_gaps_are_whole_numbers_again():
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": [7.0, 8.0]})
    assert read_interactions(frame)["item_id"].to_list() == [7, 8]
    with pytest.raises(DataError, match=r"item_id is null in 1 rows \(rows 1\)"):
        read_interactions(pd.DataFrame({"user_id": ["u", "v"], "item_id": [7.0, None]}))
    with pytest.raises(DataError, match="item_id has type Float64; expected text or whole numbers .row 1 holds 8.5"):
        read_interactions(pd.DataFrame({"user_id": ["u", "v"], "item_id": [7.0, 8.5]}))


OTHERS = [b"a", object(), {"a": 1}, ["a"], True, 1.5, datetime.date(2024, 1, 1), decimal.Decimal(7)]


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_columns_of_other_types_are_no_ids(value):
    with pytest.raises(DataError, match="item_id has type .*; expected text or whole numbers .row 0 holds"):
        read_items(pl.DataFrame({"item_id": [value], "text": ["x"]}))


def test_lazy_frames_that_fail_are_told():
    with pytest.raises(DataError, match="the table is a LazyFrame that cannot be collected"):
        read_table(TABLE.lazy().select("nowhere"))


def test_nested_lists_of_texts_are_one_text():
    table = pl.DataFrame({"item_id": ["a", "b"], "text": [[["Beauty", "Bath"], None, ["Soap"]], [["x"]]]})
    assert read_items(table)["text"].to_list() == ["Beauty Bath Soap", "x"]


ids = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.tuples(ids, st.text(max_size=8)), max_size=6))
def test_any_items_are_read_as_they_are_or_refused_with_their_rows(content):
    frame = pd.DataFrame(content, columns=["item_id", "text"], dtype=object)
    try:
        table = read_items(frame)
    except DataError as error:
        assert "item table" in str(error)
    else:
        assert list(map(str, table["item_id"])) == [str(item) for item, _ in content]


@given(st.lists(st.tuples(ids, ids, st.none() | st.floats() | st.integers(-(2**62), 2**62)), min_size=1, max_size=6))
def test_any_events_are_read_as_they_are_or_refused_with_their_rows(content):
    frame = pd.DataFrame(content, columns=["user_id", "item_id", "timestamp"], dtype=object)
    try:
        table = read_interactions(frame)
    except DataError as error:
        assert "interaction table has problems" in str(error) and "rows" in str(error)
    else:
        given_pairs = [(str(user), str(item)) for user, item, _ in content]
        assert sorted((str(user), str(item)) for user, item, _ in table.iter_rows()) == sorted(given_pairs)
        assert table["timestamp"].is_sorted()
