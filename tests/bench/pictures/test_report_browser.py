"""The report in a real browser: no errors, tables sort, nothing overflows, light and dark."""

import numpy as np
import pytest

from bench.pictures.page import write
from bench.pictures.style import SERIES
from tests.results_folder import write_run

LAST = {"zero-shot": 0.5, "coop": 0.7, "cgil": 0.9, "a-method-with-a-rather-long-name": 0.6, "<script>boom()<\\script>": 0.1}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A report on two protocols, one of them with more tasks than fit on a phone."""
    folder = tmp_path_factory.mktemp("report")
    for method, last in LAST.items():
        for seed in (0, 1):
            write_run(folder / "results", np.full((3, 3), last), seed=seed, method=method)
        write_run(folder / "results", np.full((15, 15), last), method=method, protocol="long-15x2", limits="train=5",
                  overrides="some_long_hyper_parameter=0.123456789;another_long_hyper_parameter=true")  # fmt: skip
    return write.write([folder / "results"], folder / "report.html").as_uri()


@pytest.fixture
def open_page(visit, address):
    """open_page(width, scheme): the report with everything folded out."""

    def open_at(width=1440, scheme="light"):
        browser = visit(address, width, scheme)
        browser.execute_script("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
        return browser

    return open_at


def column(browser, index):
    """The texts of one column of the first table."""
    rows = "Array.from(document.querySelector('table.sortable').tBodies[0].rows)"
    return browser.execute_script(f"return {rows}.map((row) => row.cells[arguments[0]].textContent.trim())", index)


def headings(browser):
    return browser.find_elements("css selector", "table.sortable:first-of-type thead th")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_loads_without_error_and_does_not_overflow(open_page, width, scheme):
    browser = open_page(width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    narrow = "return Array.from(document.querySelectorAll('svg'), (picture) => picture.getBoundingClientRect().width)"
    assert all(0 < picture <= width for picture in browser.execute_script(narrow))
    small = (
        "return Math.min(...Array.from(document.querySelectorAll('.chart text'), (text) => text.getBoundingClientRect().height))"
    )
    assert browser.execute_script(small) >= 10  # letters on a phone, too


def test_heading_sorts_and_a_second_click_reverses(open_page):
    browser = open_page()
    heading = headings(browser)[1]
    heading.find_element("tag name", "button").click()
    numbers = [float(text.split()[0]) for text in column(browser, 1)]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == len(LAST)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.find_element("tag name", "button").click()
    assert [float(text.split()[0]) for text in column(browser, 1)] == numbers[::-1]
    assert heading.get_attribute("aria-sort") == "ascending"


def test_keyboard_sorts_and_only_one_column_is_marked(open_page):
    from selenium.webdriver.common.keys import Keys

    browser = open_page()
    headings(browser)[1].find_element("tag name", "button").send_keys(Keys.ENTER)
    headings(browser)[0].find_element("tag name", "button").send_keys(Keys.SPACE)
    names = [name.removesuffix(" †") for name in column(browser, 0)]
    assert names == sorted(names, key=str.lower)
    marks = [heading.get_attribute("aria-sort") for heading in headings(browser)]
    assert marks[0] == "ascending" and not any(marks[1:])


def contrast(first, second):
    """WCAG contrast of two "rgb(r, g, b)" colours."""

    def luminance(text):
        channels = np.array([float(part) for part in text.strip("rgba()").split(",")[:3]]) / 255
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_and_lines_stand_out_in_light_and_dark(open_page, scheme, dark):
    browser = open_page(scheme=scheme)
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    page = browser.execute_script(style, "body", "backgroundColor")
    assert (contrast(page, "rgb(0, 0, 0)") < 2) == dark
    for element, attribute, least in (("body", "color", 7), (".notes", "color", 4.5), (".chart text", "fill", 4.5)):
        assert contrast(page, browser.execute_script(style, element, attribute)) >= least
    variable = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    for number in range(len(SERIES)):
        colour = browser.execute_script(variable, f"--series-{number + 1}")
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert contrast(page, f"rgb({red}, {green}, {blue})") >= 3


def test_markup_in_a_method_name_does_not_run(open_page):
    browser = open_page()
    assert browser.execute_script("return document.scripts.length") == 1
    assert any("<script>boom()" in name for name in column(browser, 0))
