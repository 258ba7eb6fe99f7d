"""The page of a run's files with their JSON Schemas, from the records that they hold."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel

from client.results.comparison_table import ComparisonTable
from client.results.records import Exports, MetricsRow, Plan, Purchase, Review, Summary
from tools.site.docstrings import describe, escaped, table

_BEGINNING = """\
# Files of a run, field by field

[The files of a run](files.md) says which file holds what. Programs read the same records as `run.plan`,
`run.purchase` and `run.summary` ([Python](python.md)). Each file below has a JSON Schema. A later version may
add fields; it removes or changes none without a new major version.
"""
_OF_PARTS = "The records that lie in those above."


@dataclass(frozen=True)
class File:
    """A JSON file of a run or of a comparison, or one of JSON lines.

    Attributes:
        name: of the file.
        record: what it holds, or what a line of it holds.
        is_sparse: whether a field without a value is left out.
    """

    name: str
    record: type[BaseModel]
    is_sparse: bool = False

    @property
    def schema_name(self) -> str:
        """The name of the schema's file."""
        return f"{self.name.partition('.')[0]}.schema.json"

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the file, or of a line of it, with the descriptions of the docstrings."""
        found = self.record.model_json_schema(mode="validation" if self.is_sparse else "serialization")
        definitions = found.pop("$defs", {})
        for part in (found, *definitions.values()):
            _describe(part)
        found["title"] = f"A line of {self.name}" if self.has_lines else self.name
        start = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return start | found | ({"$defs": definitions} if definitions else {})

    @property
    def has_lines(self) -> bool:
        """Whether each line of the file is a value of its own."""
        return self.name.endswith(".jsonl")

    def values(self, folder: Path) -> Iterator[Any]:
        """The JSON values in the file, if the folder has it: one, or one a line."""
        file = folder / self.name
        if file.exists():
            text = file.read_text(encoding="utf-8")
            yield from map(json.loads, text.splitlines() if self.has_lines else [text])

    def faults(self, folder: Path) -> list[str]:
        """The faults of a file: fields that the schema lacks, and values that it does not allow."""
        schema = self.schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            part["additionalProperties"] = False
        validator = Draft202012Validator(schema)
        found = [each for value in self.values(folder) for each in validator.iter_errors(value)]
        return [f"{self.name}: {each.json_path}: {each.message}" for each in found]


TABLE = File("table.json", ComparisonTable)
FILES = (
    File("plan.json", Plan, is_sparse=True),
    File("purchase.json", Purchase),
    File("exports.json", Exports),
    File("review.json", Review),
    File("metrics.jsonl", MetricsRow, is_sparse=True),
    File("summary.json", Summary),
    TABLE,
)


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([_BEGINNING, *map(_section, FILES), _parts()])


def schemas() -> dict[str, str]:
    """The JSON Schemas, by the paths to which the page links."""
    return {
        f"schemas/{file.schema_name}": json.dumps(file.schema(), indent=2, ensure_ascii=False) + "\n"
        for file in FILES
    }


def faults(folder: Path) -> list[str]:
    """The faults of a run's files, by their schemas."""
    return [fault for file in FILES for fault in file.faults(folder)]


def _describe(part: dict[str, Any]) -> None:
    """Give a record's schema the text of its docstring, and its properties what that says of each."""
    docstring = describe(part.get("description"))
    part["description"] = _of_json(docstring.text)
    for name, value in part["properties"].items():
        value.pop("title", None)
        if name in docstring.fields:
            value["description"] = _of_json(docstring.fields[name])
        if "description" not in value:
            raise ValueError(f"Nothing says what {name} is in {part['title']}.")


def _of_json(text: str) -> str:
    return text.replace("`None`", "`null`")


def _section(file: File) -> str:
    schema = file.schema()
    schema_file = f"[{file.schema_name}](schemas/{file.schema_name})"
    return f"## {file.name}\n\n{escaped(schema['description'])}\n\nSchema: {schema_file}\n\n{_fields(schema)}"


def _parts() -> str:
    """The records that lie in those of the files, each once however many have it."""
    parts = {name: part for file in FILES for name, part in file.schema().get("$defs", {}).items()}
    sections = [
        f"### {name}\n\n{escaped(part['description'])}\n\n{_fields(part)}"
        for name, part in sorted(parts.items())
    ]
    return "\n".join([f"## Parts\n\n{_OF_PARTS}\n", *sections])


def _fields(part: dict[str, Any]) -> str:
    rows = [
        (f"`{name}`", _kind(value), escaped(value["description"].removesuffix(".")))
        for name, value in part["properties"].items()
    ]
    return table(("field", "type", "meaning"), rows)


def _kind(schema: dict[str, Any]) -> str:
    """A JSON Schema's type in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(f'"{each}"' for each in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_kind(schema['prefixItems'][0])}"
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    kind: str = schema.get("type", "any")
    return "text" if kind == "string" else kind
