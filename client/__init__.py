"""The client: buy a teacher's embeddings once, and distil a small student from them.

What a program needs is importable from here, and docs/python.md shows it at work:

- `distill`, `plan`, `compare`, `plan_comparison`, `embed`, with their options `DistillOptions`,
  `CompareOptions`, `EmbedOptions` and their results `Run`, `Plan`, `Summary`, `Purchase`, `Comparison`,
  `ComparisonPlan`, `Embeddings`;
- `next_options`: those of a run's next generation;
- `Recipe`, a training protocol, and `Variant`, a row of a comparison with a recipe of its own;
- `Method`, `Supervision`, `Augmentation`, `register_method`, `register_student`: what is plugged in
  (docs/extending.md);
- `load_run`, `load_student`, `evaluate`, `export`: what is done with a finished `Student`; `AskOptions` say
  about which images it asks the vendor;
- `serve`, with `ServeOptions`: a finished student as a service;
- `check_folder`: what is wrong with a folder of images, as an `Inspection`; `unpack_example`: a folder to
  try;
- `models`, `usage`, `reconcile`, `batches`, `cancel_batch`, with `VendorOptions`, `AccountUsage` and
  `Reconciliation`: what a vendor sells, has billed, and works on in no hurry;
- `verify_receipts`, `export_receipts`, `verify_receipts_file`: what it has signed, as `Evidence` for others;
- `canary`, with `CanaryOptions`: whether it still sells the model that it sold;
- `isolation_test`, with `IsolationOptions`: whether it keeps projects and accounts apart, as an `Isolation`;
- `Display` shows progress in a terminal or a notebook, `ProgressListener` is what a program shows it with;
- `Teacher`: whom to ask, by name, or made of two functions or of an open_clip model;
- `VendorClient` (a vendor over HTTP), `EmbeddingCache` (what was paid for), `Query` (what is bought),
  `Budget` (how much may be spent), `Buyer` (the cache, then the budget, then the vendor): buying by hand;
- `ClientError`, the root of the error tree that is drawn in client/errors.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.api.account import (
        AccountUsage as AccountUsage,
    )
    from client.api.account import (
        batches as batches,
    )
    from client.api.account import (
        cancel_batch as cancel_batch,
    )
    from client.api.account import (
        models as models,
    )
    from client.api.account import (
        reconcile as reconcile,
    )
    from client.api.account import (
        usage as usage,
    )
    from client.api.canary import canary as canary
    from client.api.comparison import (
        Comparison as Comparison,
    )
    from client.api.comparison import (
        ComparisonPlan as ComparisonPlan,
    )
    from client.api.comparison import (
        compare as compare,
    )
    from client.api.comparison import (
        plan_comparison as plan_comparison,
    )
    from client.api.distillation import Run as Run
    from client.api.distillation import distill as distill
    from client.api.distillation import load_run as load_run
    from client.api.embedding import Embeddings as Embeddings
    from client.api.embedding import embed as embed
    from client.api.exports import Exported as Exported
    from client.api.exports import export as export
    from client.api.folders import check_folder as check_folder
    from client.api.folders import unpack_example as unpack_example
    from client.api.generations import next_options as next_options
    from client.api.isolation import isolation_test as isolation_test
    from client.api.planning import plan as plan
    from client.api.receipts import (
        export_receipts as export_receipts,
    )
    from client.api.receipts import (
        verify_receipts as verify_receipts,
    )
    from client.api.receipts import (
        verify_receipts_file as verify_receipts_file,
    )
    from client.api.serving import serve as serve
    from client.api.students import (
        DomainAccuracy as DomainAccuracy,
    )
    from client.api.students import (
        Predictions as Predictions,
    )
    from client.api.students import (
        Student as Student,
    )
    from client.api.students import (
        evaluate as evaluate,
    )
    from client.api.students import (
        load_student as load_student,
    )
    from client.cache.cache import EmbeddingCache as EmbeddingCache
    from client.data.inspection import Inspection as Inspection
    from client.errors import ClientError as ClientError
    from client.learning.backbones import register_student as register_student
    from client.learning.methods import Method as Method
    from client.learning.methods import register_method as register_method
    from client.learning.recipe import Augmentation as Augmentation
    from client.learning.recipe import Recipe as Recipe
    from client.learning.recipe import Variant as Variant
    from client.learning.supervision import Supervision as Supervision
    from client.options.students import AskOptions as AskOptions
    from client.options.students import ServeOptions as ServeOptions
    from client.options.training import CompareOptions as CompareOptions
    from client.options.training import DistillOptions as DistillOptions
    from client.options.vendor import (
        CanaryOptions as CanaryOptions,
    )
    from client.options.vendor import (
        EmbedOptions as EmbedOptions,
    )
    from client.options.vendor import (
        IsolationOptions as IsolationOptions,
    )
    from client.options.vendor import (
        VendorOptions as VendorOptions,
    )
    from client.progress import Display as Display
    from client.progress import ProgressListener as ProgressListener
    from client.proofs.canary import CanaryResult as CanaryResult
    from client.proofs.evidence import Evidence as Evidence
    from client.proofs.isolation import Isolation as Isolation
    from client.proofs.reconciliation import Reconciliation as Reconciliation
    from client.proofs.swap import SwapCheck as SwapCheck
    from client.purchase.budget import Budget as Budget
    from client.purchase.buyer import Buyer as Buyer
    from client.results.records import Plan as Plan
    from client.results.records import Purchase as Purchase
    from client.results.records import Summary as Summary
    from client.vendors.query import Query as Query
    from client.vendors.teacher import Teacher as Teacher
    from client.vendors.teachers.tuition import VendorClient as VendorClient

# Where each public name lives; it is imported when it is first asked for.
_MODULES = {
    "client.api.account": ("AccountUsage", "batches", "cancel_batch", "models", "reconcile", "usage"),
    "client.api.canary": ("canary",),
    "client.api.comparison": ("Comparison", "ComparisonPlan", "compare", "plan_comparison"),
    "client.api.distillation": ("Run", "distill", "load_run"),
    "client.api.embedding": ("Embeddings", "embed"),
    "client.api.exports": ("Exported", "export"),
    "client.api.folders": ("check_folder", "unpack_example"),
    "client.api.generations": ("next_options",),
    "client.api.isolation": ("isolation_test",),
    "client.api.planning": ("plan",),
    "client.api.receipts": ("export_receipts", "verify_receipts", "verify_receipts_file"),
    "client.api.serving": ("serve",),
    "client.api.students": ("DomainAccuracy", "Predictions", "Student", "evaluate", "load_student"),
    "client.cache.cache": ("EmbeddingCache",),
    "client.data.inspection": ("Inspection",),
    "client.errors": ("ClientError",),
    "client.learning.backbones": ("register_student",),
    "client.learning.methods": ("Method", "register_method"),
    "client.learning.recipe": ("Augmentation", "Recipe", "Variant"),
    "client.learning.supervision": ("Supervision",),
    "client.options.students": ("AskOptions", "ServeOptions"),
    "client.options.training": ("CompareOptions", "DistillOptions"),
    "client.options.vendor": ("CanaryOptions", "EmbedOptions", "IsolationOptions", "VendorOptions"),
    "client.progress": ("Display", "ProgressListener"),
    "client.proofs.canary": ("CanaryResult",),
    "client.proofs.evidence": ("Evidence",),
    "client.proofs.isolation": ("Isolation",),
    "client.proofs.reconciliation": ("Reconciliation",),
    "client.proofs.swap": ("SwapCheck",),
    "client.purchase.budget": ("Budget",),
    "client.purchase.buyer": ("Buyer",),
    "client.results.records": ("Plan", "Purchase", "Summary"),
    "client.vendors.teachers.tuition": ("VendorClient",),
    "client.vendors.query": ("Query",),
    "client.vendors.teacher": ("Teacher",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever it is that is asked for)
    """Import a public name when it is first asked for, so that a command imports no more than it uses."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
