"""All public datasets by name: ``NAME``, ``NAME:WHICH`` and, with a filter, ``NAME:5-core`` or ``NAME:WHICH:5-core``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from diffgrm.data.dataset import InteractionDataset
from diffgrm.data.marks import PLAIN
from diffgrm.data.sources.amazon import amazon_reviews_2014, amazon_reviews_2018, amazon_reviews_2023
from diffgrm.data.sources.amazon_categories import CATEGORIES_2014, CATEGORIES_2018, CATEGORIES_2023
from diffgrm.data.sources.lastfm import lastfm_1k
from diffgrm.data.sources.mind import mind_small
from diffgrm.data.sources.movielens import movielens, movielens_users
from diffgrm.data.sources.retailrocket import retailrocket
from diffgrm.data.sources.steam import steam
from diffgrm.data.sources.tables import RATING, refuse_users
from diffgrm.data.sources.yelp import yelp
from diffgrm.data.toy import toy_world
from diffgrm.foundation.event_settings import EventSettings
from diffgrm.foundation.schema import DataError, did_you_mean

NAME = re.compile(r"(?P<name>[^:]*)(?::(?P<which>.*?))??(?::(?P<core>\d{1,9})-core)?", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A dataset, or a family of them.

    Attributes:
        about: how large it is, as its publisher says.
        licence: what its publisher allows, in short; the docstring of what loads it says more.
        load: makes it; takes ``events``, and ``core`` unless ``filtered`` is false, and before them which of a family or
            which file is meant.
        which: what has to be named, ``CATEGORY`` or ``FILE``; "": nothing.
        choices: of what has to be named, where they are known.
        filtered: whether it can be filtered by the number of events.
        rated: whether its events have the column ``rating``.
        users: makes its table of users; None: there is none.
    """

    about: str
    licence: str
    load: Callable[..., InteractionDataset]
    which: str = ""
    choices: tuple[str, ...] = ()
    filtered: bool = True
    rated: bool = False
    users: Callable[[], pl.DataFrame] | None = None

    def shown(self, name: str) -> str:
        """Its name on the command line."""
        return f"{name}:{self.which}" if self.which else name


def _toy(events: EventSettings = PLAIN) -> InteractionDataset:
    """The storefront; it has no columns that settings could name, but repeats."""
    toy = toy_world().dataset
    if events == PLAIN:
        return toy
    refuse_users(toy.name, events)
    return InteractionDataset.from_tables(toy.event_table(), toy.item_table, name=toy.name, events=events)


GROUPLENS = "research, no redistribution"
CITE = "no licence named; cite the paper"
AMAZON: dict[str, Any] = {"which": "CATEGORY", "rated": True}
SOURCES: dict[str, Source] = {
    "toy": Source("generated storefront; needs no network", "Apache-2.0", _toy, filtered=False),
    **{
        f"movielens-{size}": Source(
            about,
            GROUPLENS,
            partial(movielens, size),
            rated=True,
            users=partial(movielens_users, size) if size in ("100k", "1m") else None,
        )
        for size, about in {
            "100k": "943 users, 1,682 films, 100,000 ratings",
            "1m": "6,040 users, 3,706 films, 1,000,209 ratings",
            "10m": "71,567 users, 10,681 films, 10,000,054 ratings",
            "20m": "138,493 users, 27,278 films, 20,000,263 ratings",
            "25m": "162,541 users, 62,423 films, 25,000,095 ratings",
            "32m": "200,948 users, 87,585 films, 32,000,204 ratings",
        }.items()
    },
    "amazon-2014": Source("reviews and products, 5-core", CITE, amazon_reviews_2014, **AMAZON, choices=CATEGORIES_2014),
    "amazon-2018": Source("reviews and products, 5-core", CITE, amazon_reviews_2018, **AMAZON, choices=CATEGORIES_2018),
    "amazon-2023": Source("ratings and products, 5-core", CITE, amazon_reviews_2023, **AMAZON, choices=CATEGORIES_2023),
    "steam": Source("7,793,069 reviews of games; made 5-core", CITE, steam),
    "lastfm-1k": Source("992 users, 19,150,868 plays of tracks; made 5-core", "non-commercial", lastfm_1k),
    "lastfm-1k-artists": Source("the same plays, of artists; made 5-core", "non-commercial", partial(lastfm_1k, "artists")),
    "yelp": Source("reviews of businesses; made 5-core", "academic, no redistribution", yelp, "FILE", rated=True),
    "retailrocket": Source("2,756,101 events of a shop, views; made 5-core", "CC BY-NC-SA 4.0", retailrocket, "FILE"),
    "mind-small": Source("50,000 readers' clicks on news; made 5-core", "non-commercial research", mind_small, "FILE"),
}


def load_source(name: str, events: EventSettings = PLAIN) -> InteractionDataset:
    """A dataset by its name: one of ``SOURCES``, which of the family or which file, and perhaps a filter.

    ``movielens-1m``, ``amazon-2018:Luxury_Beauty``, ``amazon-2018:Luxury_Beauty:10-core``, ``steam:0-core`` (all of it),
    ``yelp:~/Downloads/yelp_dataset.tar``.

    Args:
        events: which rows are events and what is known of them, as in a recipe's section ``events``; ratings are in the
            column ``rating``, where there are any; columns of users are those of :func:`user_table_of`.

    Raises:
        DataError: unknown or incomplete name. DownloadError: what it names cannot be had or read.
    """
    source, which, core = _asked(name)
    family = name.partition(":")[0]
    if source.which and not which and source.choices:
        raise DataError(f"which {source.which} of {family}? Name it, {source.shown(family)}: {', '.join(source.choices)}")
    if which and not source.which:
        raise DataError(f"{family} is one dataset, found {name!r}; after its name only a filter may stand, such as :5-core")
    if core and not source.filtered:
        raise DataError(f"{family} has no filter, found {name!r}; leave :{core}-core out")
    more: dict[str, Any] = {"core": int(core)} if core else {}
    if events != PLAIN:
        more["events"] = events
    return source.load(*([which] if source.which else []), **more)


def rated_table(name: str) -> InteractionDataset:
    """A dataset by its name, whose event table has the ratings too, where there are any; see :func:`load_source`."""
    source, _, _ = _asked(name)
    return load_source(name, EventSettings(weight=RATING) if source.rated else PLAIN)  # type: ignore[call-arg]


def user_table_of(name: str) -> pl.DataFrame | None:
    """The table of users of a dataset by its name; None: there is none. Errors as of :func:`load_source`."""
    users = _asked(name)[0].users
    return None if users is None else users()


def _asked(name: str) -> tuple[Source, str | None, str | None]:
    """What a name asks for: the dataset or family, which one of it, and the filter.

    Raises:
        DataError: there is no such dataset.
    """
    found = NAME.fullmatch(name)
    assert found is not None  # whatever a text holds, it matches
    if found["name"] not in SOURCES:
        raise DataError(f"there is no dataset {name!r}{did_you_mean(found['name'], SOURCES)}")
    return SOURCES[found["name"]], found["which"], found["core"]
