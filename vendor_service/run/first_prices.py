"""The first prices of models, by the file of models."""

import logging
from collections.abc import Sequence

from vendor_service.acts import prices
from vendor_service.acts.act import Act
from vendor_service.audit.actors import os_user
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.money.prices import PriceDifference
from vendor_service.run.model_specs import ModelSpec
from vendor_service.webhooks import model_notices

_log = logging.getLogger(__name__)


def publish_prices(database: Database, clock: Clock, specs: Sequence[ModelSpec], *, warns: bool) -> None:
    """Give the models their first prices; the log `warns` of those that the books have otherwise by now.

    Receivers of events learn which models are deprecated.
    """
    differences = []
    with database.write() as session:
        act = Act(session, os_user(), clock)
        for spec in specs:
            found = prices.publish(act, spec.id, spec.prices.get(STANDARD_PLAN, {}))
            for plan, wanted in spec.prices.items():
                if plan != STANDARD_PLAN:
                    found += prices.publish_plan(act, plan, spec.id, wanted)
            differences += [(spec, each) for each in found]
            model_notices.tell(session, spec.id, spec.deprecated_at, spec.sunset_at, act.now)
    for spec, difference in differences if warns else []:
        _warn(spec, difference)


def _warn(spec: ModelSpec, difference: PriceDifference) -> None:
    plan, kind, asked = difference.plan, difference.kind, difference.asked_micros
    where = f"{spec.id}: prices.{plan}.{kind}_micros"
    holding, price, model = difference.holding_micros, f"{asked}micros", spec.id
    _log.warning(
        "%s is %d, but the price in the books is %s, which holds; to change it: %s",
        where,
        asked,
        "withdrawn" if holding is None else holding,
        f"`vendor prices set {model} {kind} {price} --plan {plan}`",
    )
