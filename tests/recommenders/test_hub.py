from __future__ import annotations

import errno

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from diffgrm import PopularityRecommender, RandomRecommender, Recommender, toy_world
from diffgrm.foundation.schema import ModelFolderError
from helpers.servers import HubServer

HISTORIES = [["item 1", "item 2"], ["item 40"]]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.use(monkeypatch, tmp_path / "huggingface")
        yield server


@pytest.fixture(scope="module")
def popularity():
    return PopularityRecommender().fit(toy_world(users=30).dataset)


def files(hub, name="someone/shop"):
    return hub.repositories[name].commits[-1][1]


def asked(hub, method):
    return [request.path for request in hub.requests if request.method == method]


def test_a_pushed_model_comes_back_the_same(hub, popularity):
    url = popularity.push_to_hub("someone/shop")
    assert url == f"{hub.url}/someone/shop"
    fetched = Recommender.from_pretrained("someone/shop")
    assert isinstance(fetched, PopularityRecommender)
    assert fetched.recommend(HISTORIES, k=20).equals(popularity.recommend(HISTORIES, k=20))
    assert fetched.facts == popularity.facts


@pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file")
def test_pushing_without_the_xet_protocol(hub, popularity, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    popularity.push_to_hub("someone/shop")
    assert Recommender.from_pretrained("someone/shop").recommend(HISTORIES).equals(popularity.recommend(HISTORIES))


def test_the_repository_holds_the_model_folder(hub, popularity, tmp_path):
    popularity.push_to_hub("someone/shop", message="First model")
    popularity.save(tmp_path / "model")
    assert {name: content for name, content in files(hub).items() if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()
    }
    assert hub.repositories["someone/shop"].messages == ["initial commit", "First model"]


@pytest.mark.filterwarnings("error:Warnings while validating metadata")
def test_the_hub_accepts_the_model_card(hub, popularity):
    popularity.push_to_hub("someone/shop")
    assert b"library_name: diffgrm" in files(hub)["README.md"]
    assert "/api/validate-yaml" in asked(hub, "POST")


def test_pushing_again_makes_a_new_commit_and_old_ones_can_be_had(hub, popularity):
    popularity.push_to_hub("someone/shop")
    first = hub.repositories["someone/shop"].commits[-1][0]
    later = PopularityRecommender().fit(toy_world(users=60, seed=9).dataset)
    later.push_to_hub("someone/shop", message="Second model")
    assert hub.repositories["someone/shop"].messages[1:] == ["Upload model", "Second model"]
    newest, oldest = (Recommender.from_pretrained("someone/shop", revision=revision) for revision in (None, first))
    assert newest.recommend(HISTORIES).equals(later.recommend(HISTORIES))
    assert oldest.recommend(HISTORIES).equals(popularity.recommend(HISTORIES))
    assert not newest.recommend(HISTORIES).equals(oldest.recommend(HISTORIES))


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_can_be_private(hub, popularity, private):
    popularity.push_to_hub("someone/shop", private=private)
    assert hub.repositories["someone/shop"].private is private


def test_the_token_is_sent(hub, popularity):
    popularity.push_to_hub("someone/shop", token="hf_secret")
    Recommender.from_pretrained("someone/shop", token="hf_secret")
    sent = {r.headers.get("authorization") for r in hub.requests if r.path != "/api/agent-harnesses"}
    assert sent == {"Bearer hf_secret"}


def test_a_wrong_token_is_a_model_folder_error(hub, popularity):
    popularity.push_to_hub("someone/shop")
    with pytest.raises(ModelFolderError, match=r"someone/shop is neither a model folder nor a repository .*401"):
        Recommender.from_pretrained("someone/shop", token="wrong")


def test_the_second_fetch_downloads_no_file_again(hub, popularity):
    popularity.push_to_hub("someone/shop")
    Recommender.from_pretrained("someone/shop")
    before = len(hub.requests)
    Recommender.from_pretrained("someone/shop")
    assert not [request for request in hub.requests[before:] if "/resolve/" in request.path]


def test_a_fetched_model_loads_without_the_hub(hub, popularity):
    popularity.push_to_hub("someone/shop")
    Recommender.from_pretrained("someone/shop")
    hub.close()
    assert Recommender.from_pretrained("someone/shop").recommend(HISTORIES).equals(popularity.recommend(HISTORIES))


def test_a_hub_that_is_off_is_a_model_folder_error(hub):
    hub.close()
    with pytest.raises(ModelFolderError, match="someone/shop is neither a model folder nor a repository the hub gives"):
        Recommender.from_pretrained("someone/shop")


MEND = "the hub cannot be reached: check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, and try again"
BOTH = pytest.mark.parametrize(
    "ask",
    [
        lambda model, **more: model.push_to_hub("a/shop", **more),
        lambda model, **more: model.from_pretrained("a/shop", **more),
    ],
)


@BOTH
def test_a_hub_that_cannot_be_reached_is_told_with_what_helps(hub, popularity, ask):
    hub.close()
    with pytest.raises(ModelFolderError, match=MEND):
        ask(popularity)


@BOTH
def test_so_is_one_that_must_not_be_asked(hub, popularity, monkeypatch, ask):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFolderError, match=MEND):
        ask(popularity)
    assert not hub.requests


@BOTH
def test_a_token_that_is_not_there_is_told(hub, popularity, ask):
    with pytest.raises(ModelFolderError, match="no token found") as caught:
        ask(popularity, token=True)
    assert MEND not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(errno.ENOSPC, "No space left"), "HF_HOME"), (RuntimeError("lost"), MEND)]
)
def test_whatever_breaks_on_the_way_is_a_model_folder_error(hub, popularity, monkeypatch, error, told):
    def failing(*given, **more):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    monkeypatch.setattr(HfApi, "upload_folder", failing)
    with pytest.raises(ModelFolderError, match=told):
        Recommender.from_pretrained("someone/shop")
    with pytest.raises(ModelFolderError, match=told):
        popularity.push_to_hub("someone/shop")


@pytest.mark.parametrize("name", ["someone/nothing", "nothing", "no repository at all", "a/b/c", "x" * 300])
def test_an_unknown_repository_is_a_model_folder_error(hub, name):
    with pytest.raises(ModelFolderError, match=f"{name} is neither a model folder nor a repository the hub gives"):
        Recommender.from_pretrained(name)


def test_an_unknown_revision_is_a_model_folder_error(hub, popularity):
    popularity.push_to_hub("someone/shop")
    with pytest.raises(ModelFolderError, match=r"(?s)neither a model folder nor .*Revision Not Found"):
        Recommender.from_pretrained("someone/shop", revision="v2")


def test_a_repository_without_a_model_is_a_model_folder_error(hub):
    HfApi().create_repo("someone/empty")
    with pytest.raises(ModelFolderError, match=r"is not a diffgrm model: it has no manifest\.json"):
        Recommender.from_pretrained("someone/empty")


def test_a_changed_file_in_the_repository_is_noticed(hub, popularity):
    popularity.push_to_hub("someone/shop")
    repository = hub.repositories["someone/shop"]
    repository.commit({**files(hub), "recipe.yaml": b"recommender: random\n"}, "Edit by hand")
    with pytest.raises(ModelFolderError, match=r"is not whole: recipe\.yaml"):
        Recommender.from_pretrained("someone/shop")


def test_an_edited_card_does_no_harm(hub, popularity):
    popularity.push_to_hub("someone/shop")
    hub.repositories["someone/shop"].commit({**files(hub), "README.md": b"# Mine", "figure.png": b"png"}, "Edit the card")
    assert Recommender.from_pretrained("someone/shop").recommend(HISTORIES).equals(popularity.recommend(HISTORIES))


def test_another_kind_of_model_is_a_model_folder_error(hub, popularity):
    popularity.push_to_hub("someone/shop")
    assert PopularityRecommender.from_pretrained("someone/shop").name == "popularity"
    with pytest.raises(ModelFolderError, match="holds a PopularityRecommender, not a RandomRecommender"):
        RandomRecommender.from_pretrained("someone/shop")


def test_from_pretrained_takes_a_folder_without_asking_the_hub(hub, popularity, tmp_path):
    popularity.save_pretrained(tmp_path / "model")
    fetched = Recommender.from_pretrained(tmp_path / "model")
    assert fetched.recommend(HISTORIES).equals(popularity.recommend(HISTORIES))
    assert not hub.requests
