"""The client: buy a teacher's embeddings once, and distil a small student from them.

What a program needs is importable from here, and docs/python.md shows it at work:

- `distill`, `plan`, `compare`, `plan_comparison`, `embed`, with their options `DistillOptions`,
  `CompareOptions`, `EmbedOptions` and their results `Run`, `Plan`, `Summary`, `Purchase`, `Comparison`,
  `ComparisonPlan`, `Embeddings`;
- `next_options`: those of a run's next generation;
- `Recipe`, a training protocol, and `Variant`, a row of a comparison with a recipe of its own;
- `load_run`, `load_student`, `evaluate`, `export`: what is done with a finished `Student`; `AskOptions` say
  about which images it asks the vendor;
- `serve`, with `ServeOptions`: a finished student as a service;
- `check_folder`: what is wrong with a folder of images, as an `Inspection`; `unpack_example`: a folder to
  try;
- `models`, `usage`, `reconcile`, `batches`, `cancel_batch`, with `VendorOptions`, `AccountUsage` and
  `Reconciliation`: what a vendor sells, has billed, and works on in no hurry;
- `verify_receipts`, `export_receipts`, `verify_receipts_file`: what it has signed, as `Evidence` for others;
- `canary`, with `CanaryOptions`: whether it still sells the model that it sold;
- `Display` shows progress in a terminal or a notebook, `ProgressListener` is what a program shows it with;
- `VendorClient` (a vendor over HTTP), `EmbeddingCache` (what was paid for), `Query` (what is bought),
  `Budget` (how much may be spent), `Teacher` (the cache, then the budget, then the vendor): buying by hand;
- `ClientError`, the root of the error tree that is drawn in client/errors.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.api.account import AccountUsage, batches, cancel_batch, models, reconcile, usage
    from client.api.canary import canary
    from client.api.comparison import Comparison, ComparisonPlan, compare, plan_comparison
    from client.api.distillation import Run, distill, load_run
    from client.api.embedding import Embeddings, embed
    from client.api.exports import Exported, export
    from client.api.folders import check_folder, unpack_example
    from client.api.generations import next_options
    from client.api.planning import plan
    from client.api.receipts import export_receipts, verify_receipts, verify_receipts_file
    from client.api.serving import serve
    from client.api.students import (
        DomainAccuracy,
        Predictions,
        Student,
        evaluate,
        load_student,
    )
    from client.cache.cache import EmbeddingCache
    from client.data.inspection import Inspection
    from client.errors import ClientError
    from client.learning.recipe import Recipe, Variant
    from client.options.students import AskOptions, ServeOptions
    from client.options.training import CompareOptions, DistillOptions
    from client.options.vendor import CanaryOptions, EmbedOptions, VendorOptions
    from client.progress import Display, ProgressListener
    from client.proofs.canary import CanaryResult
    from client.proofs.evidence import Evidence
    from client.proofs.reconciliation import Reconciliation
    from client.proofs.swap import SwapCheck
    from client.purchase.budget import Budget
    from client.purchase.teacher import Teacher
    from client.results.records import Plan, Purchase, Summary
    from client.vendors.protocols.tuition import VendorClient
    from client.vendors.query import Query

_HOMES = {
    "AccountUsage": "client.api.account",
    "AskOptions": "client.options.students",
    "Budget": "client.purchase.budget",
    "CanaryOptions": "client.options.vendor",
    "CanaryResult": "client.proofs.canary",
    "ClientError": "client.errors",
    "CompareOptions": "client.options.training",
    "Comparison": "client.api.comparison",
    "ComparisonPlan": "client.api.comparison",
    "Display": "client.progress",
    "DistillOptions": "client.options.training",
    "DomainAccuracy": "client.api.students",
    "EmbedOptions": "client.options.vendor",
    "EmbeddingCache": "client.cache.cache",
    "Embeddings": "client.api.embedding",
    "Evidence": "client.proofs.evidence",
    "Exported": "client.api.exports",
    "Inspection": "client.data.inspection",
    "Plan": "client.results.records",
    "Predictions": "client.api.students",
    "ProgressListener": "client.progress",
    "Purchase": "client.results.records",
    "Query": "client.vendors.query",
    "Recipe": "client.learning.recipe",
    "Reconciliation": "client.proofs.reconciliation",
    "Run": "client.api.distillation",
    "ServeOptions": "client.options.students",
    "Student": "client.api.students",
    "SwapCheck": "client.proofs.swap",
    "Summary": "client.results.records",
    "Teacher": "client.purchase.teacher",
    "Variant": "client.learning.recipe",
    "VendorClient": "client.vendors.protocols.tuition",
    "VendorOptions": "client.options.vendor",
    "batches": "client.api.account",
    "canary": "client.api.canary",
    "cancel_batch": "client.api.account",
    "check_folder": "client.api.folders",
    "compare": "client.api.comparison",
    "distill": "client.api.distillation",
    "embed": "client.api.embedding",
    "evaluate": "client.api.students",
    "export": "client.api.exports",
    "export_receipts": "client.api.receipts",
    "load_run": "client.api.distillation",
    "load_student": "client.api.students",
    "models": "client.api.account",
    "next_options": "client.api.generations",
    "plan": "client.api.planning",
    "plan_comparison": "client.api.comparison",
    "reconcile": "client.api.account",
    "serve": "client.api.serving",
    "unpack_example": "client.api.folders",
    "usage": "client.api.account",
    "verify_receipts": "client.api.receipts",
    "verify_receipts_file": "client.api.receipts",
}

__all__ = [
    "AccountUsage",
    "AskOptions",
    "Budget",
    "CanaryOptions",
    "CanaryResult",
    "ClientError",
    "CompareOptions",
    "Comparison",
    "ComparisonPlan",
    "Display",
    "DistillOptions",
    "DomainAccuracy",
    "EmbedOptions",
    "EmbeddingCache",
    "Embeddings",
    "Evidence",
    "Exported",
    "Inspection",
    "Plan",
    "Predictions",
    "ProgressListener",
    "Purchase",
    "Query",
    "Recipe",
    "Reconciliation",
    "Run",
    "ServeOptions",
    "Student",
    "Summary",
    "SwapCheck",
    "Teacher",
    "Variant",
    "VendorClient",
    "VendorOptions",
    "batches",
    "canary",
    "cancel_batch",
    "check_folder",
    "compare",
    "distill",
    "embed",
    "evaluate",
    "export",
    "export_receipts",
    "load_run",
    "load_student",
    "models",
    "next_options",
    "plan",
    "plan_comparison",
    "reconcile",
    "serve",
    "unpack_example",
    "usage",
    "verify_receipts",
    "verify_receipts_file",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever it is that is asked for)
    """Import a public name when it is first asked for, so that a command imports no more than it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
