"""What every configuration value is made of, and how plain values become one: parse, override, and what a field means.

A refusal is one line in our own words: the field, the value, the rule, the nearest valid name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from convnext.errors import ConvNeXtError, nearest

Rate = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """A strict value: unknown fields, infinities and NaN are refused, and nothing changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


_F = TypeVar("_F", bound=Frozen)


def about(unit: str, meaning: str) -> Any:
    """The unit and the meaning of a field, for its annotation; `convnext recipes` prints them."""
    return Field(description=meaning, json_schema_extra={"unit": unit})


def parse(kind: Any, values: Mapping[str, Any], *, where: str) -> Any:
    """Build `kind`, a Frozen or a union of them tagged by 'task', from plain values.

    Raises ConvNeXtError with one line that names the field, the value and the nearest valid field.
    """
    known: Any = Annotated[kind, Field(discriminator="task")] if isinstance(kind, UnionType) else kind
    try:
        return TypeAdapter(known).validate_python(values)
    except ValidationError as error:
        raise ConvNeXtError(_one_line(kind, error, where)) from None


def plain(text: str) -> Any:
    """'1e-3' -> 0.001, 'true' -> True, '[1, 2]' or '1,2' -> [1, 2], 'none' -> None; other text stays text."""
    if text.lower() in ("none", "null"):
        return None
    for attempt in (text, text.lower(), f"[{text}]" if "," in text else text):
        try:
            return json.loads(attempt)
        except json.JSONDecodeError:
            continue
    return text


def changed(value: Frozen, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of `value` with dotted fields replaced; every name of `changes` must be one of `fields_of`."""
    values = value.model_dump()
    for path, new in changes.items():
        *parents, leaf = path.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        place[leaf] = plain(new) if isinstance(new, str) and not isinstance(place[leaf], str) else new
    return values


def of_kinds(value: _F, changes: Mapping[str, Any], *, where: str) -> _F:
    """`value`, each part whose `kind` is changed to one with other fields made one of that kind; not yet checked.

    Fields that both kinds have keep their values, the others have the defaults of the new kind.
    Raises ConvNeXtError for a kind that there is not.
    """
    made: dict[str, Frozen] = {}
    for name, asked in ((path.removesuffix(".kind"), new) for path, new in changes.items() if path.endswith(".kind")):
        kinds = kinds_of(type(value), name)
        if not kinds:
            continue  # `override` says that there is no such part
        if asked not in list(kinds):
            rule = _one_of(str(asked), ", ".join(map(repr, kinds)))
            raise ConvNeXtError(f"{where}: {name}.kind = {asked!r} is refused: {rule}")
        part, new = getattr(value, name), kinds[asked]
        if type(part) is not new:
            both = type(part).model_fields.keys() & new.model_fields.keys()
            kept = {field: getattr(part, field) for field in new.model_fields if field in both}
            made[name] = new.model_construct(**kept | {"kind": asked})
    return value.model_copy(update=made)


def kinds_of(kind: type[Frozen], part: str) -> dict[str, type[Frozen]]:
    """{kind: the type of value that has it} of a part that is chosen by its `kind`, e.g. of the head; else nothing."""
    owners = _values_in(kind.model_fields[part].annotation) if part in kind.model_fields else []
    return {tag: owner for owner in owners if "kind" in owner.model_fields for tag in _tags(owner)}


def fields_of(value: Frozen, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a frozen value under its dotted name, e.g. 'optim.lr'."""
    leaves: dict[str, Any] = {}
    for name in type(value).model_fields:
        item = getattr(value, name)
        leaves |= fields_of(item, f"{prefix}{name}.") if isinstance(item, Frozen) else {f"{prefix}{name}": item}
    return leaves


def described(value: Frozen, prefix: str = "") -> list[dict[str, Any]]:
    """{'field', 'value', 'unit', 'meaning'} of every leaf, in order; values are those of JSON."""
    rows: list[dict[str, Any]] = []
    plain_values = value.model_dump(mode="json")
    for name, info in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, Frozen):
            rows += described(item, f"{prefix}{name}.")
        else:
            rows.append({"field": f"{prefix}{name}", "value": plain_values[name], **_told(info)})
    return rows


def leaves_of(kind: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, field) of every leaf that a kind of value can have, also of those inside tuples and unions."""
    for owner in _values_in(kind):
        for name, info in owner.model_fields.items():
            inner = list(leaves_of(info.annotation, f"{prefix}{name}."))
            yield from inner
            if not inner or _in_tuple(info.annotation):
                yield f"{prefix}{name}", info


def _told(info: FieldInfo) -> dict[str, str]:
    extra = info.json_schema_extra
    return {"unit": str(extra.get("unit", "")) if isinstance(extra, dict) else "", "meaning": info.description or ""}


def _in_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _values_in(annotation: Any) -> list[type[Frozen]]:
    """The kinds of Frozen inside an annotation: itself, the choices of a union, the items of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return [annotation]
    origin = get_origin(annotation)
    if origin in (Annotated, Union, UnionType, tuple):
        return [kind for part in get_args(annotation) for kind in _values_in(part)]
    return []


def _one_line(kind: Any, error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path, owners = _place(kind, first["loc"])
    name = ".".join(path)
    known = [field for owner in owners for field in owner.model_fields]
    if first["type"] == "extra_forbidden":
        return f"{where}: no field is called '{name}'.{nearest(path[-1], known)}"
    if first["type"] in ("missing", "union_tag_not_found"):
        field = name if first["type"] == "missing" else ".".join([*path, _discriminator(first)])
        return f"{where}: field '{field}' is missing."
    if first["type"] == "union_tag_invalid":
        tag, field = str(first["ctx"]["tag"]), ".".join([*path, _discriminator(first)])
        return f"{where}: {field} = {tag!r} is refused: {_one_of(tag, str(first['ctx']['expected_tags']))}"
    if first["type"] == "value_error":
        message = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {name + ': ' if name else ''}{message}."
    return f"{where}: {name} = {first['input']!r} is refused: {_rule(first)}"


_RULES = {  # pydantic's kind of error -> our words; its context fills the braces
    "greater_than": "it must be greater than {gt:g}",
    "greater_than_equal": "it must be {ge:g} or more",
    "less_than": "it must be less than {lt:g}",
    "less_than_equal": "it must be {le:g} or less",
    "finite_number": "it must be a finite number",
    "int_from_float": "it must be a whole number",
    "too_short": "it needs {min_length} or more values, and {actual_length} are given",
    "too_long": "it takes {max_length} values, and {actual_length} are given",
    "missing_argument": "a value is missing",
}
_KINDS = {  # the first part of the name of an error of type
    "int": "it must be a whole number",
    "float": "it must be a number",
    "bool": "it must be true or false",
    "string": "it must be text",
    "tuple": "it takes several values, with commas between them",
    "model": "it takes fields with names",
    "dict": "it takes fields with names",
}


def _rule(error: Any) -> str:
    """The rule that a value broke, as a sentence."""
    if error["type"] == "literal_error":
        return _one_of(str(error["input"]), str(error["ctx"]["expected"]))
    rule = _RULES.get(error["type"], "").format_map(error.get("ctx", {}))
    return f"{rule or _KINDS.get(error['type'].split('_')[0], 'it is no value of this field')}."


def _one_of(given: str, expected: str) -> str:
    """'it must be one of ...' from pydantic's list of what it expects, and the nearest of them."""
    names = re.findall(r"'([^']*)'", expected) or re.split(r", | or ", expected)
    rule = f"it must be one of {', '.join(names)}" if len(names) > 1 else f"it must be {names[0]}"
    return f"{rule}.{nearest(given, names)}"


def _discriminator(error: Any) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _place(kind: Any, loc: tuple[int | str, ...]) -> tuple[list[str], list[type[Frozen]]]:
    """The dotted parts of an error's place, without the tags that pydantic puts into it, and what holds the last part."""
    path: list[str] = []
    here = owners = _values_in(kind)
    for part in loc:
        tagged = [owner for owner in here if len(here) > 1 and part in _tags(owner)]
        if tagged:
            here = owners = tagged
            continue
        path.append(str(part))
        owners = here
        fields = [owner.model_fields[part] for owner in here if part in owner.model_fields]
        here = [found for info in fields for found in _values_in(info.annotation)] or here
    return path, owners


def _tags(kind: type[Frozen]) -> list[Any]:
    """The values by which a union can know this one."""
    fields = kind.model_fields.items()
    return [tag for name, info in fields if name in ("task", "family", "kind") for tag in get_args(info.annotation)]
