"""`/console`: the pages of customers, their acts, and the way in and out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import APIRouter
from sqlalchemy.orm import Session

from shared.errors import APIError
from shared.http.capacity import Capacity
from vendor_service.acts.act import ActContext
from vendor_service.acts.sessions import end_all
from vendor_service.batches.services import BatchServices
from vendor_service.console.acts import Acts
from vendor_service.console.customers.acts import CustomerFace
from vendor_service.console.customers.downloads import Downloads
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.console.customers.trying import TryIt
from vendor_service.console.customers.visitor import CustomersDoor, SignedInCustomer, identify
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.console.site import Site, Threads
from vendor_service.database.tables import ConsoleSession
from vendor_service.embed.models import Models
from vendor_service.embed.sales import Sales
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication
from vendor_service.http.history_rate import HistoryRate

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The largest form with images that is taken, and the longest text."""

    max_request_bytes: int
    max_text_characters: int


def console_router(
    acts: ActContext,
    seal: Seal,
    authentication: Authentication,
    models: Models,
    sales: Sales,
    capacity: Capacity,
    limits: Limits,
    threads: AccountThreads,
    jobs: BatchServices | None = None,
) -> APIRouter:
    """The routes, which are in no OpenAPI document. `jobs` runs bulk jobs, where the vendor does."""
    database, clock = acts.database, acts.clock
    limit, own_threads = _limit(HistoryRate()), _OwnThreads(threads)
    site = Site(CUSTOMERS, "Tuition", database, clock, seal, identify, limit, own_threads)
    forms = Acts(CustomerFace(acts, runs_jobs=jobs is not None))
    pages = CustomerPages(acts, models, forms, runs_jobs=jobs is not None)
    door = CustomersDoor(database, clock, seal, authentication, threads)
    site.add_assets()
    site.add_way_in("/sign-in", "sign_in.html", "Sign in", door.by_key)
    site.add_way_in("/invitation", "customers/invitation.html", "You are invited", door.by_invitation)
    site.add_way_out(_end_everywhere)
    site.add_pages(pages.all())
    site.add_actions(forms.actions())
    trying = TryIt(site, pages, sales, capacity, limits.max_request_bytes, limits.max_text_characters)
    site.add("POST", "/models/try", trying.answer)
    if jobs is not None:
        site.add("GET", "/batches/files/{file_id}", Downloads(site, jobs, capacity).answer)
    site.add_fallback()
    return site.router


class _OwnThreads(Threads[SignedInCustomer]):
    """The threads in which a customer holds up no account but their own."""

    def __init__(self, threads: AccountThreads) -> None:
        self._threads = threads

    async def read(self, who: SignedInCustomer, work: Callable[[], T]) -> T:
        return await self._threads.read(who.account_id, work)

    async def do(self, who: SignedInCustomer, work: Callable[[], T]) -> T:
        return await self._threads.do(who.account_id, work)


def _limit(rate: HistoryRate) -> Callable[[SignedInCustomer, int], None]:
    def take(who: SignedInCustomer, cost: int) -> None:
        try:
            rate.take(who.actor, cost)
        except APIError as error:
            message = "pages may be asked for, and forms sent, five times a second"
            raise APIError(error.code, message, retry_after=error.retry_after) from error

    return take


def _end_everywhere(session: Session, who: SignedInCustomer) -> Sequence[ConsoleSession]:
    if who.key is None or who.ends_all_sessions:
        return end_all(session, account_id=who.account_id)
    return end_all(session, account_id=who.account_id, key_id=who.key.id)
