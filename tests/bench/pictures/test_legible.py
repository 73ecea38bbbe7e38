"""With a few methods and with fifty: no name covers another one, none leaves the picture, and colours can be told apart."""

import re
from functools import cache
from importlib.resources import files
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from colorspacious import cspace_convert, deltaE
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.pictures import plots, rankings
from bench.pictures.form import Form
from bench.pictures.labels import misplaced
from bench.pictures.picture import AS_EVER, drawn
from bench.pictures.style import MUTED, OTHERS, SERIES, look
from bench.reports import statistics
from tests.bench.pictures.invented import NAMES, invented

FEW, MANY = 5, 50
HIGHLIGHT = Form(highlight=("slca", "rail-dual"))


@cache
def on_one_stream(methods):
    return invented(methods, seeds=2, tasks=4, samples=methods == FEW)


def figure_of(kind, methods, form=AS_EVER):
    if kind in rankings.TITLES:
        picture = ranks_of(kind, methods, form)
    else:
        picture = plots.of_results(form.chosen(on_one_stream(methods)), [kind], form)[-1]
    with look("test"):
        return drawn(picture, form)


def ranks_of(kind, methods, form):
    """Ranks that are found without a test, whose resampling takes a second for fifty methods."""
    ranks = np.linspace(1.4, methods - 0.4, methods) + np.sin(np.arange(methods)) / 4
    cd = statistics.critical_difference(methods, 60)
    return plots.critical_difference(NAMES[:methods], ranks, cd, statistics.cliques(ranks, cd), ["p", "q"], kind=kind, form=form)


@pytest.mark.parametrize("kind", [kind for kind in plots.ALL_KINDS if kind != "reliability"])
@pytest.mark.parametrize("methods", [FEW, MANY])
def test_no_name_covers_another_one_or_leaves_the_picture(kind, methods):
    assert misplaced(figure_of(kind, methods)) == []


def test_reliability_diagram_is_legible():
    assert misplaced(figure_of("reliability", FEW)) == []


@pytest.mark.parametrize("kind", ["accuracy", "cost", "critical-difference"])
def test_highlighted_pictures_of_fifty_methods_are_legible(kind):
    assert misplaced(figure_of(kind, MANY, HIGHLIGHT)) == []


def test_long_names_are_legible():
    """Variants of a method carry their settings in their names."""
    found = invented(6, seeds=1, tasks=3)
    found.table["overrides"] = "epochs=30;learning_rate=0.0001;prompt_length=16;temperature=0.07"
    for kind in ("accuracy", "cost"):
        (picture,) = plots.of_results(found, [kind])
        with look("test"):
            assert misplaced(drawn(picture)) == []


def test_what_is_misplaced_is_found():
    with matplotlib.rc_context():
        figure = Figure(figsize=(2, 2))
        figure.text(0.5, 0.5, "first")
        figure.text(0.52, 0.5, "second")
        figure.text(0.95, 0.1, "too far right")
        figure.text(0.1, 0.9, "alone")
        assert sorted(misplaced(figure)) == ["'first' covers 'second'", "'too far right' leaves the picture"]


def test_nothing_but_the_lines_own_points_has_a_marker():
    """A marker right of the last task would be read as another task."""
    axes = figure_of("accuracy", FEW).axes[0]
    assert max(x for line in axes.lines for x in line.get_xdata()) == 4
    assert all(line.get_transform() == axes.transData for line in axes.lines)


# -- highlight --------------------------------------------------------------------------------------------------


def test_others_are_grey_behind_and_named_in_one_legend_line():
    figure = figure_of("accuracy", FEW, HIGHLIGHT)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert {name for name, line in lines.items() if line.get_color() == OTHERS} == {"joint", "ranpac"}
    assert lines["ranpac"].get_zorder() < lines["slca"].get_zorder() and lines["zero-shot"].get_color() == MUTED
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert sorted(named) == ["rail-dual", "slca", "zero-shot"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["joint, ranpac"]


def test_more_others_than_a_legend_line_can_name_are_counted():
    (legend,) = figure_of("cost", MANY, HIGHLIGHT).legends
    assert [text.get_text() for text in legend.get_texts()] == ["47 other methods"]


def test_highlighted_names_of_a_ranking_are_bold():
    axes = figure_of("ranking", FEW, HIGHLIGHT).axes[0]
    bold = {word for text in axes.texts if text.get_fontweight() == "bold" for word in text.get_text().split()}
    assert bold & set(NAMES) == {"slca", "rail-dual"}


def test_one_picture_a_method_is_of_those_that_stand_out():
    pictures = plots.of_results(on_one_stream(FEW), ["matrix"], HIGHLIGHT)
    assert [picture.title for picture in pictures] == [
        f"Accuracy of {name} on each task, in percent" for name in ("zero-shot", "slca", "rail-dual")
    ]


@pytest.mark.parametrize("form", [Form(methods=("slca", "scla")), Form(highlight=("scla",))])
def test_unknown_methods_are_refused_with_a_suggestion(form):
    with pytest.raises(BenchError, match="'scla'.*did you mean slca"):
        form.chosen(on_one_stream(FEW))


def test_highlight_of_a_method_that_is_not_drawn_is_refused():
    with pytest.raises(BenchError, match="'ranpac'"):
        Form(methods=("slca",), highlight=("ranpac",)).chosen(on_one_stream(FEW))


def test_only_the_wanted_methods_are_drawn():
    axes = figure_of("accuracy", FEW, Form(methods=("slca", "zero-shot"))).axes[0]
    assert {line.get_label() for line in axes.lines} == {"slca", "zero-shot"}


# -- size and title ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["accuracy", "cost", "matrix", "critical-difference"])
def test_size_is_that_of_the_whole_picture(kind):
    figure = figure_of(kind, FEW, Form(size=(4.0, 3.5)))
    assert figure.get_size_inches().tolist() == [4.0, 3.5] and misplaced(figure) == []
    assert figure.texts[0].get_text()  # its title


def test_letters_shrink_until_fifty_names_fit():
    assert misplaced(figure_of("accuracy", MANY, Form(size=(6.0, 5.0), title=""))) == []


@pytest.mark.parametrize("kind", ["accuracy", "critical-difference"])
def test_size_that_is_too_small_is_refused(kind):
    with pytest.raises(BenchError, match="does not fit into 3x2 inches; give a larger --size, fewer --methods"):
        figure_of(kind, MANY, Form(size=(3.0, 2.0), title=""))


def test_title_is_replaced_and_left_out():
    assert figure_of("accuracy", FEW, Form(title="Ours")).texts[0].get_text() == "Ours"
    assert figure_of("accuracy", FEW, Form(title="")).texts == []


def test_that_numbers_mean_nothing_is_said_without_a_title_too():
    form = Form(title="")
    (picture,) = plots.of_results(invented(3, seeds=1, tasks=2, limits="data=synthetic"), ["accuracy"], form)
    with look("test"):
        assert "SYNTHETIC images: accuracies mean nothing" in " ".join(text.get_text() for text in drawn(picture, form).texts)


# -- colours ----------------------------------------------------------------------------------------------------


def _as_seen(colour, sight):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    if sight == "normal":
        return rgb
    return np.clip(cspace_convert(rgb, {"name": "sRGB1+CVD", "cvd_type": sight, "severity": 100}, "sRGB1"), 0, 1)


def _of_page(theme):
    """The colours of series in the report's style sheet: of light pages, then of dark ones."""
    sheet = files("bench.pictures.page").joinpath("page.css").read_text(encoding="utf-8")
    colours = re.findall(r"--series-\d: (#[0-9a-f]{6})", sheet)
    assert len(colours) == 2 * len(SERIES)
    return colours[: len(SERIES)] if theme == "light" else colours[len(SERIES) :]


def _contrast(one, other):
    """Of two colours, as WCAG 2.1 computes it."""
    rgb = np.array([_as_seen(colour, "normal") for colour in (one, other)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("palette", [(*SERIES, OTHERS), _of_page("dark")], ids=["paper and light pages", "dark pages"])
@pytest.mark.parametrize("sight", ["normal", "deuteranomaly", "protanomaly", "tritanomaly"])
def test_colours_keep_apart_for_colour_blind_readers(sight, palette):
    """Okabe and Ito's palette has 11 in the worst case of these; 2 to 3 is just noticeable side by side."""
    seen = [_as_seen(colour, sight) for colour in palette]
    assert min(deltaE(one, other, input_space="sRGB1") for one, other in combinations(seen, 2)) > 15


def test_the_report_has_the_colours_of_pictures():
    assert _of_page("light") == list(SERIES)


def test_colours_stand_out_from_the_page():
    """A contrast of 3 is what WCAG 2.1 wants of graphics."""
    assert min(_contrast(colour, "#ffffff") for colour in SERIES) > 3
    assert min(_contrast(colour, "#14171a") for colour in _of_page("dark")) > 3
