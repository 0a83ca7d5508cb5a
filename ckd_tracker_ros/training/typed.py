"""Typed settings out of YAML: frozen dataclasses, filled strictly."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used; names it and what is allowed."""


def setting(
    default: Any, low: float = -math.inf, high: float = math.inf, choices: tuple[str, ...] = (), above: bool = False
) -> Any:
    """A field with its allowed range or choices.

    Args:
        above: the lower end itself is not allowed.
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "choices": choices, "above": above})


def fill(start: T, values: Any, where: str) -> T:
    """A copy of a dataclass instance with the given values.

    Args:
        values: mapping of field -> value; nested mappings for nested dataclasses.
        where: name of this part of the settings, for people.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or outside what is allowed.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {values!r}; expected: a mapping of names to values")
    fields = {field.name: field for field in dataclasses.fields(start)}  # type: ignore[arg-type]
    unknown = [str(key) for key in values if key not in fields]
    if unknown:
        raise ConfigError(f"unknown {_join(where, unknown[0])}; known: {', '.join(fields)}")
    hints = get_type_hints(type(start))
    changes = {}
    for key, value in values.items():
        place = _join(where, key)
        changes[key] = _typed(hints[key], value, place, getattr(start, key))
        _check(fields[key].metadata, changes[key], place)
    try:
        return dataclasses.replace(start, **changes)  # type: ignore[type-var]
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # what the dataclass itself refuses
        raise ConfigError(f"{where}: {error}") from error


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """`["a.b=1", "c=[x, y]"]` -> {"a": {"b": 1}, "c": ["x", "y"]}; values are YAML.

    Raises:
        ConfigError: no '=', or a value that is no YAML.
    """
    result: dict[str, Any] = {}
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {change!r}; expected: key.sub=value, such as train.steps=100")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change!r}: {text!r} is no YAML value") from error
        *parents, last = key.strip().split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {change!r}: {parent} was given a value before")
        place[last] = value
    return result


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the second one's values over the first one's."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _typed(hint: Any, value: Any, place: str, start: Any) -> Any:
    """The value as its type says, or an error."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (hint,) = (kind for kind in inner if kind is not type(None))
        return _typed(hint, value, place, start)
    if dataclasses.is_dataclass(hint):
        return fill(start if dataclasses.is_dataclass(start) else hint(), value, place)
    if origin is tuple:
        many = len(inner) == 2 and inner[1] is Ellipsis
        if not isinstance(value, (list, tuple)) or not (many or len(value) == len(inner)):
            raise ConfigError(f"{place} is {value!r}; expected: a list{'' if many else f' of {len(inner)}'}")
        kinds = [inner[0]] * len(value) if many else inner
        return tuple(_typed(kind, item, f"{place}[{i}]", None) for i, (kind, item) in enumerate(zip(kinds, value)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place} is {value!r}; expected: a mapping of names to values")
        return {str(key): _typed(inner[1], item, _join(place, key), None) for key, item in value.items()}
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as text
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif type(value) is hint:
        return value
    elif hint is str and value is None:
        return ""
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    raise ConfigError(f"{place} is {value!r}; expected: {names[hint]}")


def _check(metadata: Mapping[str, Any], value: Any, place: str) -> None:
    """Ranges and choices of a field, for each of its values where it has several."""
    if not metadata or value is None:
        return
    choices, low, high, above = (metadata[key] for key in ("choices", "low", "high", "above"))
    if choices and value not in choices:
        raise ConfigError(f"{place} is {value!r}; allowed: {', '.join(map(repr, choices))}")
    for key, number in value.items() if isinstance(value, dict) else [("", value)]:
        if not isinstance(number, (int, float)):
            continue
        if number > high or number < low or (above and number == low):
            ends = [f"above {low:g}" if above else f"at least {low:g}"] * (low > -math.inf)
            ends += [f"at most {high:g}"] * (high < math.inf)
            raise ConfigError(f"{_join(place, key) if key else place} is {number!r}; allowed: {', '.join(ends)}")
