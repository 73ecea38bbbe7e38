"""Changed hyper-parameters: METHOD.FIELD=VALUE as a user writes it, checked against the method's own settings."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, unknown_name
from bench.learning import recipes
from bench.learning.setting_values import as_text, converted
from bench.system import named_files, registry

if TYPE_CHECKING:
    from bench.learning.method import Method


@dataclass(frozen=True)
class Assignment:
    """One hyper-parameter of one method gets a value."""

    method: str
    field: str
    text: str  # the value as it would be written on the command line
    where: str  # how complaints name it, e.g. "--set cgil.lr=fast"

    @property
    def change(self) -> tuple[str, str, str]:
        return self.field, self.text, self.where


def parse(assignment: str, option: str = "--set") -> Assignment:
    """METHOD.FIELD=VALUE taken apart."""
    target, equals, text = assignment.partition("=")
    method, dot, field = target.partition(".")
    if not (equals and dot and method and field):
        raise BenchError(f"{option} {assignment}: write it as METHOD.FIELD=VALUE, for instance cgil.vae_epochs=100")
    return Assignment(method, field, text, f"{option} {assignment}")


def check_methods(assignments: Iterable[Assignment], methods: Iterable[str]) -> None:
    """Refuse an assignment to a method that is not run."""
    for assignment in assignments:
        if assignment.method not in methods:
            raise BenchError(f"{assignment.where}: {unknown_name('method of this run', assignment.method, methods)}")


def chosen_settings(
    name: str,
    method: type["Method"],
    protocol: str,
    assignments: Sequence[Assignment],
    recipe: Mapping[str, tuple[Any, str]] = {},
) -> tuple[Any, dict[str, Any]]:
    """The method's settings on a protocol with these changes, and the changed values by field.

    recipe: what recipe files say, field -> (value, where); the changes go before it. What they say that the method says itself
    is no change.
    """
    fields = typing.get_type_hints(method.Settings)
    changed: dict[str, Any] = {}
    for assignment in assignments:
        if assignment.field not in fields:
            raise BenchError(f"{assignment.where}: {registry.unknown_setting(name, assignment.field, fields)}")
        changed[assignment.field] = converted(assignment.text, fields[assignment.field], assignment.where)
    from_recipe = recipes.typed(recipe, name, method.Settings)
    try:
        present = method.settings_for(protocol, {}) if from_recipe else None
        other = {field: value for field, value in from_recipe.items() if value != getattr(present, field)}
        return method.settings_for(protocol, from_recipe | changed), other | changed
    except ValueError as error:
        raise BenchError(f"{name}: {error}") from error


def as_texts(settings: type, values: Mapping[str, Any]) -> dict[str, str]:
    """Those of the values that are hyper-parameters here, as they would be written on the command line."""
    own = {field.name for field in dataclasses.fields(settings)}
    return {name: as_text(value, name) for name, value in values.items() if name in own}


def identifying(settings: Any) -> dict[str, Any]:
    """What of the settings identifies a run: all, less those `added_later` that have their default; files with their digests."""
    fields = dataclasses.fields(settings)
    unchanged = {f.name for f in fields if f.metadata.get("added_later") and getattr(settings, f.name) == f.default}
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in unchanged}
    files = {name for name in named_files.fields_of(settings) if values.get(name) is not None}
    return values | {name: named_files.with_digest(name, values[name]) for name in files}


def restored(settings: type, values: Mapping[str, Any]) -> Any:
    """Settings from their values as JSON keeps them, where tuples have become lists."""
    hints = typing.get_type_hints(settings)
    wanted = {field.name for field in dataclasses.fields(settings) if field.init}
    given = {name: named_files.path_of(value) for name, value in values.items() if name in wanted}
    return settings(**{name: _typed(value, hints[name]) for name, value in given.items()})


def _typed(value: Any, kind: Any) -> Any:
    if not isinstance(value, list) or typing.get_origin(kind) is list:
        return value
    return tuple(_typed(item, None) for item in value)
