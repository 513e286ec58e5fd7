"""The explorer page in a real browser, against a real server."""

from __future__ import annotations

import contextlib
import json
import re
from urllib.parse import parse_qs, urlencode, urlparse
from urllib.request import urlopen

import polars as pl
import pytest

import diffgrm
from diffgrm.data.histories import HistoryEvent
from diffgrm.recommenders.popularity import PopularityRecommender
from helpers.recipes import small_recipe
from helpers.worlds import EVERYTHING, fitted

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright import sync_api as playwright

from diffgrm.apps.serving.app import create_app
from diffgrm.apps.serving.live import LiveModel
from diffgrm.apps.serving.run import in_background
from diffgrm.apps.serving.settings import Limits

expect = playwright.expect
HISTORY = ["item 3", "item 77", "item 410"]
EVIL = "<img src=x onerror=alert(1)>"
ODD_ID = "a/b?c=1&d #2%20" + 60 * "x"


def serving(folder):
    """A server in a thread; gives the page's address."""
    return in_background(create_app(LiveModel(folder), Limits(reload_seconds=0.1)))


@pytest.fixture(scope="module")
def address(saved):
    with serving(saved) as url:
        yield url


def as_view(history, **more):
    return [("history", item) for item in history] + list(more.items())


def chips(page):
    return [chip.get_attribute("data-item") for chip in page.locator("#history .chips li").all()]


def rows(page, panel="recommended"):
    """(id, title, score) of a list."""
    found = page.locator(f"#{panel} .ranked li")
    return [(row.get_attribute("data-item"), row.locator(".title").inner_text(), shown(row)) for row in found.all()]


def shown(row):
    return pytest.approx(float(row.get_attribute("data-score")), abs=1e-5)


def offline(recommender, history, k=10, **options):
    found = recommender.recommend([history], k, **options).join(recommender.item_table, "item_id", maintain_order="left")
    return list(found.select("item_id", "title", "score").iter_rows())


def wait_for_rows(page, number=10, panel="recommended"):
    expect(page.locator(f"#{panel} .ranked li")).to_have_count(number)
    expect(page.locator(f"#{panel}")).not_to_have_attribute("aria-busy", "true")


def history_of(page):
    return parse_qs(urlparse(page.url).fragment).get("history", [])


def test_items_are_found_and_added_by_keyboard(visit, address, fitted):
    page = visit(address)
    expect(page.locator("#history .start li")).to_have_count(6)
    box = page.get_by_role("combobox")
    box.focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option")).to_have_count(8)
    most = fitted.items.ids([int(fitted.item_counts.argmax())])[0]
    assert page.get_by_role("option").first.get_attribute("data-item") == most
    page.keyboard.type("dome tent red")
    expect(page.get_by_role("option").first).to_contain_text("dome tent, red")
    expect(page.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    second = page.get_by_role("option").nth(1)
    expect(second).to_have_attribute("aria-selected", "true")
    assert box.get_attribute("aria-activedescendant") == second.get_attribute("id")
    wanted = second.get_attribute("data-item")
    page.keyboard.press("Enter")
    expect(page.locator("#history .chips li")).to_have_count(1)
    expect(box).to_have_attribute("aria-expanded", "false")
    page.keyboard.type("item 410")  # Enter comes before the answer
    page.keyboard.press("Enter")
    expect(page.locator("#history .chips li")).to_have_count(2)
    assert chips(page) == history_of(page) == [wanted, "item 410"]
    wait_for_rows(page)
    assert rows(page) == offline(fitted, [wanted, "item 410"])
    page.keyboard.type("no such thing")
    expect(page.locator("#history .popup")).to_contain_text("No item has")
    page.keyboard.press("Escape")
    expect(page.locator("#history .popup")).to_be_hidden()


def test_enter_adds_an_item_of_the_query_as_it_stands_then(visit, address):
    page = visit(address)
    page.clock.install(time=0)
    page.clock.pause_at(1)
    held = []
    page.route("**/items?*", lambda route: route.continue_() if held else held.append(route))
    page.get_by_role("combobox").fill("item 3")
    with page.expect_request("**/items?*"):
        page.clock.run_for(200)
    page.get_by_role("combobox").fill("item 410")  # not asked for yet while the clock stands
    page.keyboard.press("Enter")
    with page.expect_response("**/items?*"):
        held[0].continue_()
    expect(page.get_by_role("option").first).to_have_attribute("data-item", "item 3")
    assert chips(page) == []
    page.clock.run_for(200)
    expect(page.locator("#history .chips li")).to_have_count(1)
    assert chips(page) == ["item 410"]


def test_the_history_is_ordered_by_keyboard_and_back_leads_back(visit, address):
    page = visit(address, as_view(HISTORY))
    page.locator("#history .chips .title").first.focus()
    page.keyboard.press("Alt+ArrowDown")
    assert chips(page) == history_of(page) == ["item 77", "item 3", "item 410"]
    assert page.evaluate("document.activeElement.closest('li').dataset.item") == "item 3"
    expect(page.locator("#status")).to_contain_text("item 2 of 3")
    page.keyboard.press("Delete")
    assert chips(page) == ["item 77", "item 410"]
    page.get_by_role("button", name=re.compile("^Remove")).first.click()
    page.get_by_role("button", name="Clear").click()
    assert chips(page) == [] and "#" not in page.url
    expect(page.locator("#recommended .ranked li")).to_have_count(0)
    for expected in (["item 410"], ["item 77", "item 410"], ["item 77", "item 3", "item 410"], HISTORY):
        page.go_back()
        page.wait_for_function("n => document.querySelectorAll('#history .chips li').length === n", arg=len(expected))
        assert chips(page) == expected
    wait_for_rows(page)


def test_a_view_is_restored_from_its_address(visit, address, fitted):
    choice = offline(fitted, HISTORY, 5, exclude_seen=False)[2]
    view = as_view(HISTORY, k=5, beam=40, seen="keep", item=choice[0], step=1, similar="item 3")
    page = visit(address, view)
    wait_for_rows(page, 5)
    assert rows(page) == offline(fitted.variant(["decoding.beam=40"]), HISTORY, 5, exclude_seen=False)
    expect(page.locator("#denoising .chosen .title")).to_have_text(choice[1])
    expect(page.locator("#denoising .sentence")).to_contain_text("Step 1: digit")
    titles = dict(fitted.item_table.select("item_id", "title").iter_rows())
    expect(page.locator("#history .chips .title")).to_have_text([titles[item] for item in HISTORY])
    expect(page.locator("#similar .small").first).to_have_text(f"to {titles['item 3']}")
    wait_for_rows(page, 5, "similar")
    similar = fitted.similar_items("item 3", 5)
    assert [row[0] for row in rows(page, "similar")] == similar["item_id"].to_list()
    assert [page.locator(f"#{name}").input_value() for name in ("k", "beam")] == ["5", "40"]
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#similar")).to_be_hidden()


def test_the_list_follows_its_settings_and_adds_with_one_click_or_key(visit, address, fitted):
    page = visit(address, as_view(HISTORY))
    wait_for_rows(page)
    page.get_by_label("Leave out the history").uncheck()
    page.locator("#k").fill("30")
    page.keyboard.press("Enter")
    wait_for_rows(page, 30)
    assert rows(page) == offline(fitted, HISTORY, 30, exclude_seen=False)
    page.locator("#recommended .name").nth(24).click()
    expect(page.locator("#denoising")).to_contain_text("Only the first 20")
    page.get_by_label("Leave out the history").check()
    page.locator("#k").fill("4")
    page.keyboard.press("Enter")
    wait_for_rows(page, 4)
    expected = offline(fitted, HISTORY, 4)
    assert rows(page) == expected
    page.get_by_role("button", name=f"Add {expected[1][1]} to the history").click()
    assert chips(page) == [*HISTORY, expected[1][0]]
    wait_for_rows(page, 4)
    again = offline(fitted, [*HISTORY, expected[1][0]], 4)
    expect(page.locator("#recommended .ranked .title")).to_have_text([title for _, title, _ in again])
    page.locator("#recommended .name").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    assert chips(page) == [*HISTORY, expected[1][0], again[1][0]]
    expect(page.locator("#recommended .ranked li").nth(1).locator(".name")).to_be_focused()


def test_the_steps_on_view_are_those_of_the_recommender(visit, address, fitted):
    page = visit(address, as_view(HISTORY))
    wait_for_rows(page)
    choice = offline(fitted, HISTORY)[1]
    page.locator("#recommended .name").nth(1).click()
    expect(page.locator("#denoising .chosen .title")).to_have_text(choice[1])
    steps = fitted.explain(HISTORY, 10).filter(item_id=choice[0])
    slots = page.locator("#denoising .slots li")
    expect(slots).to_have_count(3)
    beams = fitted.beams(HISTORY, 10)
    for step in (3, 2, 1, 0):
        for row in steps.iter_rows(named=True):
            slot = slots.nth(row["digit"])
            state = "hidden" if row["step"] > step else "now" if row["step"] == step else "known"
            expect(slot).to_have_attribute("data-state", state)
            expect(slot.locator(".code")).to_have_text("?" if state == "hidden" else str(row["code"]))
            sure = float(slot.locator(".own").get_attribute("data-share"))
            other = float(slot.locator(".rival").get_attribute("data-share"))
            assert (sure, other) == pytest.approx((row["confidence"], row["rival_confidence"]), abs=1e-4)
            if state == "now":
                left = "Only this item" if row["items_left"] == 1 else f"{row['items_left']} items"
                expect(page.locator("#denoising .sentence")).to_contain_text(left)
        held = beams.filter(step=step)["digits"].to_list()
        places = page.locator("#denoising .beam li")
        on_view = [json.loads(place.get_attribute("data-digits")) for place in places.all()]
        assert on_view[:7] == held[:7]
        codes = [row["code"] for row in steps.sort("digit").iter_rows(named=True)]
        for digits, place in zip(on_view, places.all(), strict=True):
            leads = all(code in (None, own) for code, own in zip(digits, codes, strict=True))
            assert ("leads" in place.get_attribute("class")) == leads
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#denoising .sentence")).to_contain_text("477 items are possible")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#denoising .sentence")).to_contain_text("Step 1")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("slider", name="Step").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#denoising .sentence")).to_contain_text("Step 2")
    assert page.url.endswith("step=2")


def test_problems_are_told_where_they_belong(visit, address):
    page = visit(address, as_view([*HISTORY, "nothing"]))
    wait_for_rows(page)
    expect(page.locator("#recommended")).to_contain_text("1 item of the history is not in the catalogue")
    expect(page.locator("#history .unknown")).to_contain_text("not in the catalogue")
    page.locator("#beam").fill("9999")
    page.keyboard.press("Enter")
    expect(page.locator("#beam-problem")).to_have_text("beam is 9,999; this server allows at most 256.")
    expect(page.locator("#beam")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#recommended .ranked li")).to_have_count(0)
    page.locator("#k").fill("0")
    page.locator("#beam").fill("")
    page.keyboard.press("Enter")
    expect(page.locator("#k-problem")).to_contain_text("greater than or equal to 1")
    expect(page.locator("#beam-problem")).to_be_hidden()
    page.locator("#k").fill("10")
    page.keyboard.press("Enter")
    wait_for_rows(page)
    expect(page.locator("#k-problem")).to_be_hidden()
    page.route("**/similar", lambda route: route.abort(), times=1)
    page.locator("#history .chips .title").first.click()
    expect(page.locator("#similar .problem")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Try again").click()
    wait_for_rows(page, 5, "similar")


def test_an_item_that_rules_brought_is_told_as_such(visit, saved, fitted):
    worst = fitted.recommend([HISTORY], 480)["item_id"][-1]
    rules = diffgrm.read_rules({"pins": {"1": worst}})
    with in_background(create_app(LiveModel(saved, rules=rules))) as url:
        page = visit(url, as_view(HISTORY))
        expect(page.locator("#denoising")).to_contain_text("Rules of the server have brought this item into the list")
        page.locator("#recommended .name").nth(1).click()
        expect(page.locator("#denoising")).to_contain_text("The rules of this server had a say in its lists")


def test_a_late_answer_does_not_overwrite_a_newer_one(visit, address, fitted):
    page = visit(address)
    held = []
    page.route("**/recommend", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/recommend"):
        page.locator("#history .start button").nth(0).click()
    page.get_by_role("combobox").fill("item 77")
    page.keyboard.press("Enter")
    expect(page.locator("#history .chips li")).to_have_count(2)
    wait_for_rows(page)
    expected = offline(fitted, chips(page))
    assert rows(page) == expected and len(held) == 1
    with contextlib.suppress(playwright.Error):
        held[0].fulfill(
            json={"model": "?", "lists": [{"user": 0, "items": [{"item_id": "late", "score": 0, "title": "late"}]}]}
        )
    page.wait_for_timeout(100)
    assert rows(page) == expected


def test_titles_and_ids_are_text_whatever_they_hold_and_fit_into_a_narrow_window(visit, folder):
    evil = pl.DataFrame({"item_id": [ODD_ID], "text": ["red dome tent of Fjell"], "title": [EVIL]})
    table = diffgrm.load(folder).add_items(_like_the_table(folder, evil))
    table.save(folder)
    with serving(folder) as address:
        page = visit(address, as_view([ODD_ID, "item 3", "<b>"], similar="item 180", seen="keep", k=100), width=360)
        expect(page.locator("#history .chips .title").first).to_have_text(EVIL)
        page.get_by_role("combobox").fill("onerror=")
        expect(page.get_by_role("option").locator(".title")).to_have_text([EVIL])
        page.keyboard.press("Enter")
        assert chips(page) == [ODD_ID, "item 3", "<b>", ODD_ID]
        wait_for_rows(page, 100)
        page.locator("#history .chips .title").first.click()
        expect(page.locator("#similar .small").first).to_have_text(f"to {EVIL}")
        wait_for_rows(page, 5, "similar")
        expect(page.locator("#denoising .beam li").first).to_be_visible()
        assert page.locator("img[src='x'], b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.set_viewport_size({"width": 1400, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def _like_the_table(folder, rows):
    """Rows with the columns that the model's items have."""
    first = diffgrm.load(folder).item_table.head(1)
    others = [pl.lit(first[name][0]).alias(name) for name in first.columns if name not in rows.columns]
    return rows.with_columns(others).select(first.columns)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_model_without_digits_says_so(visit, toy, tmp_path, scheme):
    folder = PopularityRecommender().fit(toy).save(tmp_path / "popular")
    with serving(folder) as address:
        page = visit(address, as_view(HISTORY), width=360, color_scheme=scheme, reduced_motion="reduce")
        wait_for_rows(page)
        expect(page.locator("#denoising")).to_contain_text("This model (popularity) fills in no digits")
        expect(page.locator("#beam")).to_be_hidden()
        expect(page.locator("#candidates")).to_be_hidden()
        expect(page.locator("#model")).to_contain_text("480 items")
        page.locator("#recommended [data-act=similar]").first.click()
        expect(page.locator("#similar .problem")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_model_that_ranks_whole_items_has_candidates_and_no_beam(visit, toy, tmp_path):
    hybrid = diffgrm.HybridRecommender(small_recipe("hybrid")).fit(toy, progress=False)
    with serving(hybrid.save(tmp_path / "hybrid")) as address:
        page = visit(address, as_view(HISTORY, k=5))
        wait_for_rows(page, 5)
        assert rows(page) == offline(hybrid, HISTORY, 5)
        expect(page.locator("#beam")).to_be_hidden()
        expect(page.locator("#candidates")).to_have_attribute("placeholder", "64")
        expect(page.locator("#denoising .caption")).to_contain_text("ranks whole items")
        page.locator("#candidates").fill("9999")
        page.keyboard.press("Enter")
        expect(page.locator("#candidates-problem")).to_contain_text("this server allows at most 256")
        page.locator("#candidates").fill("20")
        page.keyboard.press("Enter")
        wait_for_rows(page, 5)
        assert page.url.endswith("candidates=20")
    rules = diffgrm.read_rules({"pins": {"5": offline(hybrid, HISTORY, 9)[-1][0]}})
    with in_background(create_app(LiveModel(tmp_path / "hybrid", rules=rules))) as address:
        page = visit(address, as_view(HISTORY, k=5))
        expect(page.locator("#denoising")).to_contain_text("The rules of this server had a say in its lists")


def test_a_model_that_is_told_times_and_columns_is_asked_with_them(visit, tmp_path):
    told, _ = fitted(EVERYTHING)
    with serving(told.save(tmp_path / "told")) as address:
        page = visit(address, as_view([], k=7), width=360)
        page.locator("#history .start button").nth(0).click()
        page.locator("#history .chips .told input").first.wait_for()
        wait_for_rows(page, 7)  # now, and of the user and of the event's device nothing is said
        page.goto(address + "#" + urlencode(as_view(["i1", "i2"], k=8, seen="keep")))
        page.reload()
        wait_for_rows(page, 8)
        page.locator("#at").fill("2030-01-05T09:00")
        when = page.locator("#history .chips input")
        expect(when.nth(1)).to_have_value("2030-01-05T09:00")
        expect(when.nth(0)).to_have_value("2030-01-04T09:00")
        when.nth(1).fill("2030-01-03T08:05")
        expect(when.nth(0)).to_have_value("2030-01-02T08:05")
        page.get_by_label("device of thing number 1").select_option("phone")
        page.get_by_label("plan of the user").select_option("paid")
        page.locator("#history .chips .title").first.focus()
        page.keyboard.press("Alt+ArrowDown")
        assert chips(page) == ["i2", "i1"] and page.get_by_label("device of thing number 1").input_value() == "phone"
        times = ["2030-01-03T08:05", "2030-01-05T09:00"]  # that of i2 goes with it
        assert [field.input_value() for field in when.all()] == times
        history = [HistoryEvent("i2", time=times[0]), HistoryEvent("i1", time=times[1], values={"device": "phone"})]
        asked = {"at": "2030-01-05T09:00", "profiles": {0: {"plan": "paid"}}, "exclude_seen": False}
        wait_for_rows(page, 8)
        wanted = told.recommend(history, 8, **asked).select("item_id", "score").rows()
        assert [(item, score) for item, _, score in rows(page)] == wanted
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.reload()
        wait_for_rows(page, 8)
        assert [(item, score) for item, _, score in rows(page)] == wanted
        assert page.get_by_label("plan of the user").input_value() == "paid"
        when.nth(0).fill("2031-01-03T08:05")
        expect(page.locator("#recommended .problem:visible")).to_contain_text("give histories oldest first")


def test_another_model_in_the_folder_is_noticed(visit, folder):
    with serving(folder) as address:
        page = visit(address, as_view(HISTORY))
        wait_for_rows(page)
        best = rows(page)[0][0]
        diffgrm.load(folder).remove_items([best]).save(folder)
        expect(page.locator("#model")).to_contain_text("480 items")
        page.wait_for_timeout(500)
        page.locator("#k").fill("9")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("479 of 480 items")
        wait_for_rows(page, 9)
        assert best not in [item for item, _, _ in rows(page)]


def test_browsers_ask_whether_the_page_changed(address):
    for path in ("", "explorer/explorer.js", "explorer/explorer.css"):
        with urlopen(address + path, timeout=10) as answer:
            assert answer.headers["Cache-Control"] == "no-cache", path


def test_the_description_of_all_routes_works_under_a_strict_policy(visit, address):
    page = visit(address + "docs")
    expect(page.locator(".opblock-summary-path")).not_to_have_count(0)
    page.locator("#operations-server-health_health_get .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .highlight-code")).to_contain_text('"status": "ok"')
