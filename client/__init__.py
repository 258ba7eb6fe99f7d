"""The client: buy a teacher's embeddings once, and distil a small student from them.

What a program needs is importable from here, and as `import tuition`; docs/python.md shows it at work:

- `distill`, `plan`, `study`, `compare`, `plan_comparison`, `embed`, with their options `DistillOptions`,
  `CompareOptions`, `EmbedOptions` and their results `Run`, `Plan`, `Summary`, `Purchase`, `Comparison`,
  `ComparisonPlan`, `Embeddings`;
- `next_options`: those of a run's next generation;
- `Recipe`, a training protocol, and `Variant`, a row of a comparison with a recipe of its own;
- `Method`, `Supervision`, `Augmentation`, `Acquisition`, `PoolState`, `register_method`, `register_student`:
  what is plugged in (docs/extending.md);
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
- `Teacher`: whom to ask, by name, or made of two functions or of an open_clip model; `EmbeddingsApi`,
  `Declaration`, `KnownModel`: another vendor's API as a teacher (docs/buying.md);
- `VendorClient` (a vendor over HTTP), `EmbeddingCache` (what was paid for), `Query` (what is bought),
  `Budget` (how much may be spent), `Buyer` (the cache, then the budget, then the vendor): buying by hand;
- `ClientError` and its kinds: the error tree that is drawn in client/errors.py.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # isort: off
    from client.api.account import (
        AccountUsage as AccountUsage,
        batches as batches,
        cancel_batch as cancel_batch,
        models as models,
        reconcile as reconcile,
        usage as usage,
    )
    from client.api.canary import canary as canary
    from client.api.comparison import (
        Comparison as Comparison,
        ComparisonPlan as ComparisonPlan,
        compare as compare,
        plan_comparison as plan_comparison,
    )
    from client.api.distillation import Run as Run, distill as distill, load_run as load_run
    from client.api.embedding import Embeddings as Embeddings, embed as embed
    from client.api.exports import Exported as Exported, export as export
    from client.api.folders import check_folder as check_folder, unpack_example as unpack_example
    from client.api.generations import next_options as next_options
    from client.api.isolation import isolation_test as isolation_test
    from client.api.planning import plan as plan, study as study
    from client.api.receipts import (
        export_receipts as export_receipts,
        verify_receipts as verify_receipts,
        verify_receipts_file as verify_receipts_file,
    )
    from client.api.serving import serve as serve
    from client.api.students import (
        DomainAccuracy as DomainAccuracy,
        Predictions as Predictions,
        Student as Student,
        evaluate as evaluate,
        load_student as load_student,
    )
    from client.cache.cache import EmbeddingCache as EmbeddingCache
    from client.data.inspection import Inspection as Inspection
    from client.errors import (
        AnswerRejected as AnswerRejected,
        BudgetExhausted as BudgetExhausted,
        CacheError as CacheError,
        ClientError as ClientError,
        DataError as DataError,
        EmbeddingsDiffer as EmbeddingsDiffer,
        FingerprintChanged as FingerprintChanged,
        IdempotencyKeySpent as IdempotencyKeySpent,
        InputRefused as InputRefused,
        JobRunning as JobRunning,
        KeyRefused as KeyRefused,
        NotFound as NotFound,
        NotOffered as NotOffered,
        PriceRaised as PriceRaised,
        QuotaExhausted as QuotaExhausted,
        RequestRefused as RequestRefused,
        RequestTooLarge as RequestTooLarge,
        RunBusy as RunBusy,
        SpendingStopped as SpendingStopped,
        UsageError as UsageError,
        VendorError as VendorError,
        VendorUnreachable as VendorUnreachable,
    )
    from client.learning.backbones import register_student as register_student
    from client.learning.methods import Method as Method, register_method as register_method
    from client.learning.recipe import Augmentation as Augmentation, Recipe as Recipe, Variant as Variant
    from client.learning.supervision import Supervision as Supervision
    from client.options.students import AskOptions as AskOptions, ServeOptions as ServeOptions
    from client.options.training import CompareOptions as CompareOptions, DistillOptions as DistillOptions
    from client.options.vendor import (
        CanaryOptions as CanaryOptions,
        EmbedOptions as EmbedOptions,
        IsolationOptions as IsolationOptions,
        VendorOptions as VendorOptions,
    )
    from client.progress import Display as Display, ProgressListener as ProgressListener
    from client.proofs.canary import CanaryResult as CanaryResult
    from client.proofs.evidence import Evidence as Evidence
    from client.proofs.isolation import Isolation as Isolation
    from client.proofs.reconciliation import Reconciliation as Reconciliation
    from client.proofs.swap import SwapCheck as SwapCheck
    from client.purchase.budget import Budget as Budget
    from client.purchase.buyer import Buyer as Buyer
    from client.purchase.selection import Acquisition as Acquisition, PoolState as PoolState
    from client.results.records import Plan as Plan, Purchase as Purchase, Summary as Summary
    from client.vendors.declaration import Declaration as Declaration, KnownModel as KnownModel
    from client.vendors.embeddings_api import EmbeddingsApi as EmbeddingsApi
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
    "client.api.planning": ("plan", "study"),
    "client.api.receipts": ("export_receipts", "verify_receipts", "verify_receipts_file"),
    "client.api.serving": ("serve",),
    "client.api.students": ("DomainAccuracy", "Predictions", "Student", "evaluate", "load_student"),
    "client.cache.cache": ("EmbeddingCache",),
    "client.data.inspection": ("Inspection",),
    "client.errors": (
        "AnswerRejected",
        "BudgetExhausted",
        "CacheError",
        "ClientError",
        "DataError",
        "EmbeddingsDiffer",
        "FingerprintChanged",
        "IdempotencyKeySpent",
        "InputRefused",
        "JobRunning",
        "KeyRefused",
        "NotFound",
        "NotOffered",
        "PriceRaised",
        "QuotaExhausted",
        "RequestRefused",
        "RequestTooLarge",
        "RunBusy",
        "SpendingStopped",
        "UsageError",
        "VendorError",
        "VendorUnreachable",
    ),
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
    "client.purchase.selection": ("Acquisition", "PoolState"),
    "client.results.records": ("Plan", "Purchase", "Summary"),
    "client.vendors.teachers.tuition": ("VendorClient",),
    "client.vendors.declaration": ("Declaration", "KnownModel"),
    "client.vendors.embeddings_api": ("EmbeddingsApi",),
    "client.vendors.query": ("Query",),
    "client.vendors.teacher": ("Teacher",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # which sees the imports above
    __all__ = sorted(_HOMES)

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for, so that a command imports no more than it uses."""
        if name not in _HOMES:
            raise AttributeError(f"Tuition's API has no {name!r}.", name=name, obj=sys.modules[__name__])
        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        """The public names alone: what `tuition.<TAB>` shows."""
        return list(__all__)
