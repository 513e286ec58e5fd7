from __future__ import annotations

import pytest

from diffgrm.data.sources import listing
from diffgrm.data.sources.listing import SOURCES, load_source
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError


def test_sources_have_every_dataset():
    sizes = {f"movielens-{size}" for size in ("100k", "1m", "10m", "20m", "25m", "32m")}
    amazon = {f"amazon-{year}" for year in (2014, 2018, 2023)}
    others = {"toy", "steam", "yelp", "lastfm-1k", "lastfm-1k-artists", "retailrocket", "mind-small"}
    assert set(SOURCES) == sizes | amazon | others
    assert load_source("toy").n_items == 480


def test_every_source_names_its_licence_and_what_has_to_be_named():
    for name, source in SOURCES.items():
        assert source.licence and source.about and source.shown(name).startswith(name)
        assert bool(source.which) == (":" in source.shown(name)) and (not source.choices or source.which == "CATEGORY")
    assert [len(SOURCES[f"amazon-{year}"].choices) for year in (2014, 2018, 2023)] == [24, 29, 34]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("one", ((), {})),
        ("one:7-core", ((), {"core": 7})),
        ("many:Books", (("Books",), {})),
        ("many:Books:0-core", (("Books",), {"core": 0})),
        ("file:/a/b:c.tar", (("/a/b:c.tar",), {})),
        ("file:/a/b:c.tar:12-core", (("/a/b:c.tar",), {"core": 12})),
        ("file:5-core.tar", (("5-core.tar",), {})),
        ("file", ((None,), {})),
    ],
)
def test_names_are_read_as_family_which_and_filter(monkeypatch, name, asked):
    def note(*which, **more):
        return which, more

    sources = {
        "one": listing.Source("", "", note),
        "many": listing.Source("", "", note, "CATEGORY", ("Books", "Music")),
        "file": listing.Source("", "", note, "FILE"),
    }
    monkeypatch.setattr(listing, "SOURCES", sources)
    assert load_source(name) == asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movielens-100", "there is no dataset 'movielens-100'; did you mean 'movielens-100k'"),
        ("amazon-2015:Beauty", "there is no dataset 'amazon-2015:Beauty'; did you mean 'amazon-2018'"),
        ("amazon-2014:Beuty", "Amazon Reviews 2014 has no category 'Beuty'; did you mean 'Beauty'"),
        ("amazon-2018", "which CATEGORY of amazon-2018? Name it, amazon-2018:CATEGORY: AMAZON_FASHION, All_Beauty, "),
        ("amazon-2018:5-core", "which CATEGORY of amazon-2018? Name it, amazon-2018:CATEGORY: AMAZON_FASHION, "),
        ("movielens-1m:Drama", "movielens-1m is one dataset, found 'movielens-1m:Drama'; after its name only a filter"),
        (
            "steam:core-5",
            "steam is one dataset, found 'steam:core-5'; after its name only a filter may stand, such as",
        ),
        ("toy:5-core", "toy has no filter, found 'toy:5-core'; leave :5-core out"),
        ("", "there is no dataset ''"),
    ],
)
def test_a_name_that_is_none_gets_a_hint(name, message):
    with pytest.raises(DataError) as error:
        load_source(name)
    assert str(error.value).startswith(message)


def test_tables_of_users_are_those_of_movielens_and_others_have_none():
    assert [name for name, source in SOURCES.items() if source.users is not None] == ["movielens-100k", "movielens-1m"]
    assert listing.user_table_of("toy") is None
    with pytest.raises(DataError, match="names 'gender', but toy storefront has no table of users"):
        load_source("toy", EventSettings(user_columns={"gender": ["F"]}))
