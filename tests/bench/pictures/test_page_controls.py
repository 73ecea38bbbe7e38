"""What a reader does with a page in a real browser: filter, hide curves, point at things, read without a script."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.pictures.page import leaderboard, write
from bench.results.loaded import Results
from tests.bench.fake_records import LEVELS, fake_records
from tests.results_folder import write_run

PROTOCOLS = ("mini60-6x10", "mini-mtil-order1", "mini-xtail-order1")
FEW = ("zero-shot", "coop", "cgil", "joint")
MANY = [*FEW, *(f"method-{number}" for number in range(46))]


def in_memory(methods, protocols, seeds):
    """Finished runs that never lay on a disk."""
    tables = [fake_records(methods=methods, tasks=6, seeds=seeds, protocol=protocol) for protocol in protocols]
    return Results(pd.concat(tables, ignore_index=True), {}, lambda run_id: None)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The address of a report on four methods and two protocols, two runs each, everything kept."""
    folder = tmp_path_factory.mktemp("few")
    random = np.random.default_rng(0)
    for protocol in ("toy-3x2", "other-3x2"):
        for method in FEW:
            for seed in range(2):
                accuracies = np.clip(LEVELS[method] + random.normal(0, 0.05, (3, 3)), 0, 1).tolist()
                joint = method == "joint"
                write_run(folder / "results", accuracies, method=method, seed=seed, protocol=protocol, joint=joint)
    return write.write([folder / "results"], folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The address of a report on fifty methods."""
    page = tmp_path_factory.mktemp("many") / "report.html"
    page.write_text(write.render(in_memory(MANY, PROTOCOLS[:1], (0,))))
    return page.as_uri()


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """The address of leaderboards over two folders."""
    folder = tmp_path_factory.mktemp("ranked")
    for maker, shift in (("mine", 0.0), ("yours", 0.05)):
        for method in FEW[:3]:
            accuracies = np.full((3, 3), LEVELS[method] + shift).tolist()
            for templates in ("00e12345", "ffffffff"):
                write_run(folder / maker, accuracies, method=method, templates=templates, images=100)
    return leaderboard.write([folder / "mine", folder / "yours"], folder / "leaderboard.html").as_uri()


def elements(selector):
    """JavaScript for the elements that can be seen."""
    seen = "(element) => element.getClientRects().length && element.checkVisibility()"
    return f"Array.from(document.querySelectorAll({json.dumps(selector)})).filter({seen})"


def visible(browser, selector):
    return browser.execute_script(f"return {elements(selector)}.length")


def type_filter(browser, text):
    field = browser.find_element("id", "filter")
    field.clear()
    field.send_keys(text)


def test_the_filter_leaves_rows_curves_and_runs_of_some_methods(visit, few):
    browser = visit(few)
    rows, curves = (visible(browser, selector) for selector in ("section:first-of-type tbody tr", ".chart .curve"))
    type_filter(browser, "coop, zero")
    assert browser.find_element("id", "counted").text == "2 of 4 methods"
    names = browser.execute_script(f"return {elements('tr[data-method]')}.map((row) => row.dataset.method)")
    assert set(names) == {"coop", "zero-shot"}
    assert visible(browser, "details.method") == 4 and 0 < visible(browser, ".chart .curve") < curves
    browser.execute_script(
        "const field = document.getElementById('filter'); field.value = ''; field.dispatchEvent(new Event('input'))"
    )
    assert visible(browser, "section:first-of-type tbody tr") == rows and visible(browser, ".chart .curve") == curves


def test_a_protocol_can_be_left_out(visit, few):
    browser = visit(few)
    assert visible(browser, "main > section") == 2
    browser.find_elements("css selector", "input.protocol")[0].click()
    assert visible(browser, "main > section") == 1 and visible(browser, "nav a") == 1


def test_a_curve_is_hidden_in_all_pictures_of_its_section_alone(visit, few):
    browser = visit(few)
    box = "section .legend li[data-method='coop'] input"
    before = visible(browser, ".chart .curve[data-method='coop']")
    browser.find_element("css selector", box).click()
    first, other = (f"section:nth-of-type({number}) .chart .curve[data-method='coop']" for number in (1, 2))
    assert visible(browser, first) == 0 and visible(browser, other) == before / 2
    assert "3 of 4 shown" in browser.find_element("css selector", ".legend .count").text
    browser.find_element("css selector", "[data-show='none']").click()
    assert visible(browser, "section:nth-of-type(1) .gallery:not(.small) .curve") == 0


def test_of_many_methods_the_best_are_shown_first_with_names_that_do_not_touch(visit, many):
    browser = visit(many)
    assert visible(browser, "section:first-of-type figure:first-of-type .curve") == 9
    labels = elements("section:first-of-type figure:first-of-type .label")
    places = sorted(browser.execute_script(f"return {labels}.map((label) => Number(label.getAttribute('y')))"))
    assert len(places) == 9 and np.diff(places).min() >= 13.9
    browser.execute_script("document.querySelector(\"[data-show='all']\").click()")
    assert visible(browser, "section:first-of-type figure:first-of-type .curve") == 50
    assert visible(browser, "section:first-of-type figure:first-of-type .label") == 0


def test_pointing_at_a_cell_or_a_point_says_its_numbers(visit, few):
    from selenium.webdriver import ActionChains, Keys

    browser = visit(few)
    cell = browser.find_element("css selector", "tr[data-method='coop'] td")
    ActionChains(browser).move_to_element(cell).perform()
    tip = browser.find_element("id", "tip")
    assert tip.text.startswith("coop: Last ") and "order 0 seed 1: " in tip.text
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()
    point = browser.find_element("css selector", ".curve[data-method='coop'] .point .hit")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", point)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")  # scrolling hides the words
    ActionChains(browser).move_to_element(point).perform()
    assert tip.text.startswith("coop, after task 1: ")
    assert browser.execute_script("return document.querySelectorAll(\".curve[data-method='coop'] .point > title\").length") > 0


def test_pointing_at_a_row_makes_its_curve_stand_out(visit, few):
    from selenium.webdriver import ActionChains

    browser = visit(few)
    row = browser.find_element("css selector", "tr[data-method='cgil'] th")
    ActionChains(browser).move_to_element(row).perform()
    chosen = browser.execute_script("return Array.from(document.querySelectorAll('.curve.chosen'), (e) => e.dataset.method)")
    assert set(chosen) == {"cgil"}


def test_without_a_script_everything_is_shown(visit, many):
    browser = visit(many, scripts=False)
    assert visible(browser, ".controls, .legend input") == 0
    assert visible(browser, "section:first-of-type figure:first-of-type .curve") == 50
    rows = visible(browser, "section table:first-of-type tr[data-method]")
    assert visible(browser, ".legend li") == 50 and rows == 50 + 48  # the best and the joint one have no pair


@pytest.mark.parametrize("page", ["few", "ranked"])
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_no_serious_accessibility_fault(visit, request, page, width, scheme):
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe is not installed (pip install axe-core-python)")
    browser = visit(request.getfixturevalue(page), width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    found = axe.Axe().run(browser, options={"resultTypes": ["violations"]})
    assert found["passes"]
    assert [
        (fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"] if fault["impact"] in ("serious", "critical")
    ] == []


def test_leaderboards_link_down_to_their_conditions_and_sort(visit, ranked):
    browser = visit(ranked, width=390)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    links = browser.find_elements("css selector", "table a")
    assert len(links) == 2
    for link in links:
        assert browser.find_elements("id", link.get_attribute("href").split("#")[1])
    rows = "Array.from(document.querySelectorAll('section:first-of-type tbody tr'))"
    ranks = f"return {rows}.map((row) => row.cells[1].textContent.trim())"
    before = browser.execute_script(ranks)
    assert before == ["1", "2", "3", "4", "5", "6"]
    browser.execute_script("document.querySelectorAll('section:first-of-type thead button')[1].click()")
    assert browser.execute_script(ranks) == before[::-1]


@pytest.mark.slow
def test_fifty_methods_on_three_protocols_open_in_a_second(visit, tmp_path):
    """The shortest of several, for other programs may be at work; until everything is drawn and the script has run."""
    page, took = tmp_path / "report.html", []
    page.write_text(write.render(in_memory(MANY, PROTOCOLS, (0,))))
    for _ in range(5):
        browser = visit(page.as_uri())
        took.append(browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
    print(took)
    assert min(took) < 1000
