"""How class names go into hand-made prompts, where a paper's code writes them another way than the protocol."""

from dataclasses import replace

from bench import BenchError, Scenario


def underscored(scenario: Scenario) -> Scenario:
    """The scenario with underscores in names of several words, as the files of CIFAR-100, ImageNet-R and CUB-200 have them."""
    return replace(scenario, class_names=tuple(name.replace(" ", "_") for name in scenario.class_names))


def check_template(name: str, template: str | None) -> None:
    """BenchError for the setting of this name if its template does not have one place, {}, for the class name."""
    if template is None:
        return
    try:
        one_place = "{}" in template and template.format("class name").count("class name") == 1
    except (IndexError, KeyError, ValueError):  # more places, places with names, or a brace alone
        one_place = False
    if not one_place:
        raise BenchError(f"{name}={template!r}: put {{}} where the class name goes, once, and no other braces")
