"""The reference of a run's files, docs/files.md and docs/schemas/, from the records that they hold."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel

from client.results.comparison_table import ComparisonTable
from client.results.records import Exports, MetricsRow, Plan, Purchase, Review, Summary, ViewRow
from tests.documents.docstrings import describe, escaped, table

_BEGINNING = """\
# The files of a run

`client distill` (and `client.distill`) writes one folder. [architecture.md](architecture.md#a-run) says
which stage makes which artefact. `make reference` makes this page from the records in `client/results/`;
programs read the same records as `run.plan`, `run.purchase` and `run.summary` ([python.md](python.md)).

| file | what it holds |
|---|---|
| `config.json` | the options that make the run this run, and its id |
| `plan.json` | [what it uses, buys and costs](#planjson) |
| `purchase.json` | [what it bought](#purchasejson); a method that buys nothing writes none |
| `views.jsonl` | [the further views](#viewsjsonl) that it asked about, with `--views` |
| `metrics.jsonl` | [how training went](#metricsjsonl), a line each time something is logged |
| `aligned.safetensors` | the projector after the align stage |
| `student.safetensors` | the student, with its classes and the way images are prepared in the metadata |
| `seen.safetensors` | [which images the student was trained on](#the-images-that-a-student-has-seen) |
| `student.onnx` | the student as one graph from pixels to probabilities, if the extra `onnx` is installed |
| `exports.json` | [what the student costs in eight bits](#exportsjson), if it was written so |
| `answers.csv` | the student's answer about every image that it was tested on |
| `review.json` | [labels that the teacher doubts, and what mistakes resemble](#reviewjson) |
| `summary.json` | [what it came to](#summaryjson) |
| `report.html`, `README.md` | the report for people, and the model card |
| `web/` | [a page where the student answers](serving.md#in-the-browser) in the browser, if exported there |
| `leave-one-out/<domain>/` | the run that leaves a domain out, with `--leave-one-out` |
| `replacement/` | the successor of a finished student, until it is whole |
| `config.json.lock` | is locked while a command works on the run |
| `tensorboard/` | the metrics for TensorBoard, if that is installed |

`client compare` writes [`table.json`](#tablejson) beside the same table as text, CSV, Markdown and LaTeX.
In `runs/` it has a folder for each run. The rows of `zero-shot` have no student; of their `plan.json` and
`summary.json`, and of the comparison's own `plan.json`, there are only the fields that the table needs.

## The images that a student has seen

`seen.safetensors` names an image by the first eight bytes of the SHA-256 of what is sent of it, as an
integer, and by those of its file's SHA-256 where something else is sent: in `here` those that the run learnt
from, with labels or without, and in `before` those that the weights had seen with which it began. The next
student
[is not measured on them](serving.md#the-next-student). `held_here` and
`held_before` name those that were held out, by which weights were chosen: the next student may be measured on
them again, but a target domain may have none. Earlier versions did not write these two. The student's
metadata has the SHA-256 of the file.

## The JSON files

Each file below has a JSON Schema. A later version may add fields; it removes or changes none without a new
major version.
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
        """What is in the file that the schema does not have, or is not as it says."""
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
    File("views.jsonl", ViewRow),
    File("metrics.jsonl", MetricsRow, is_sparse=True),
    File("summary.json", Summary),
    TABLE,
)


def pages(folder: Path) -> dict[Path, str]:
    """docs/files.md and the schemas beside it, below this folder."""
    parts = [_BEGINNING, *map(_section, FILES), _parts()]
    schemas = {
        folder / "schemas" / file.schema_name: json.dumps(file.schema(), indent=2, ensure_ascii=False) + "\n"
        for file in FILES
    }
    return {folder / "files.md": "\n".join(parts), **schemas}


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a run, by their schemas."""
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
