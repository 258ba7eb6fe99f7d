"""The state machine of a batch: a request, or a bulk job, which is the same purchase over a slow transport.

    FROM      EVENT      TO         RECORD
    PLANNED   NOTE       NOTED      NOTE
    PLANNED   HELD       ABANDONED  NOTHING
    NOTED     TRY        NOTED      RENEW
    NOTED     REPEAT     NOTED      LOSE_TRY
    NOTED     BEGIN      SENT       NAME
    NOTED     ANSWER     SETTLED    STORE
    NOTED     BILL       IN_DOUBT   BILL
    NOTED     DISPUTE    SETTLED    DISPUTE
    NOTED     REFUSE     REFUSED    REFUSE
    NOTED     DOUBT      IN_DOUBT   RENEW
    NOTED     GONE       LOST       LOSE
    SENT      ANSWER     SENT       STORE
    SENT      BILL       SENT       BILL
    SENT      COMPLETE   SETTLED    DROP
    SENT      UNTOLD     SENT       NOTHING
    SENT      GONE       LOST       LOSE
    IN_DOUBT  NOTE       NOTED      NOTE
    IN_DOUBT  HELD       IN_DOUBT   NOTHING
    IN_DOUBT  BEGIN      SENT       NAME
    IN_DOUBT  ANSWER     SETTLED    STORE
    IN_DOUBT  BILL       IN_DOUBT   BILL
    IN_DOUBT  UNCHARGED  ABANDONED  DROP
    IN_DOUBT  UNTOLD     IN_DOUBT   NOTHING
    IN_DOUBT  GONE       LOST       LOSE

`State`, `Event` and `Record` explain the names. `TRANSITIONS` is this table as data. Buying, recovering and
giving up a batch all go through it (`Checkout.apply`), and the property test draws from it
(tests/client/purchase/test_lifecycle.py).

Each record is one SQLite transaction. The budget follows from the records: a note sets aside the most that
its batch may still cost, a receipt counts as paid.

A process may be killed anywhere. The last record then gives the state: a note without the name of a job is
IN_DOUBT, a note with it is SENT, and without a note the batch has ended.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a batch is."""

    PLANNED = "planned"  # its queries are chosen, and set aside in the budget
    NOTED = "noted"  # about to be sent, or sent: the vendor may be answering it
    SENT = "sent"  # a bulk job that the vendor has begun
    IN_DOUBT = "in doubt"  # a try may have been served, and no answer is stored
    SETTLED = "settled"  # its embeddings and its receipt are stored
    REFUSED = "refused"  # no try was served, and it cost nothing
    LOST = "lost"  # its answer is not to be had any more: it counts as paid
    ABANDONED = "abandoned"  # nobody was asked, or the vendor has not charged it and cannot any more


ENDS = frozenset({State.SETTLED, State.REFUSED, State.LOST, State.ABANDONED})


class Event(StrEnum):
    """An event in the life of a batch."""

    NOTE = "it is noted, for the first time or to be sent again under its old key"
    HELD = "another run has bought some of it, is buying it, or may have paid for it"
    TRY = "it is sent, for the first time or again"
    REPEAT = "it may have been charged, and is sent again where that costs a second time"
    BEGIN = "the vendor has begun the bulk job, and named it"
    ANSWER = "it is answered; or a part of a bulk job is, which has a key and a receipt of its own"
    COMPLETE = "all that a bulk job brought is stored"
    BILL = "it, or a part of it, is billed, and the answer cannot be taken"
    DISPUTE = "its answer contradicts what the vendor answered before, and is kept as evidence alone"
    REFUSE = "the vendor refuses it, and no try of it can have been served"
    DOUBT = "nobody knows whether it was served"
    UNCHARGED = "the vendor has not charged it, and cannot be answering it any more"
    UNTOLD = "the vendor does not tell whether it charged it"
    GONE = "the vendor answers it no more"


class Record(StrEnum):
    """A change of the cache, in one transaction."""

    NOTHING = "nothing"
    NOTE = "writes the note, unless another run has some of it"
    RENEW = "notes that it is sent just now"
    NAME = "notes the vendor's name for the job"
    STORE = "stores embeddings and receipt, and removes the note under the same key"
    BILL = "stores a receipt with its fault; the note stays"
    DISPUTE = "stores a receipt with its fault and its proof, and removes the note"
    REFUSE = "stores the refusal, and removes the note"
    LOSE = "stores a receipt of what is lost, and removes the note"
    LOSE_TRY = "stores a receipt of what is lost; the note stays, for it is sent again"
    DROP = "removes the note"


_S, _E, _R = State, Event, Record
TRANSITIONS: Mapping[tuple[State, Event], tuple[State, Record]] = {
    (_S.PLANNED, _E.NOTE): (_S.NOTED, _R.NOTE),
    (_S.PLANNED, _E.HELD): (_S.ABANDONED, _R.NOTHING),
    (_S.NOTED, _E.TRY): (_S.NOTED, _R.RENEW),
    (_S.NOTED, _E.REPEAT): (_S.NOTED, _R.LOSE_TRY),
    (_S.NOTED, _E.BEGIN): (_S.SENT, _R.NAME),
    (_S.NOTED, _E.ANSWER): (_S.SETTLED, _R.STORE),
    (_S.NOTED, _E.BILL): (_S.IN_DOUBT, _R.BILL),
    (_S.NOTED, _E.DISPUTE): (_S.SETTLED, _R.DISPUTE),
    (_S.NOTED, _E.REFUSE): (_S.REFUSED, _R.REFUSE),
    (_S.NOTED, _E.DOUBT): (_S.IN_DOUBT, _R.RENEW),
    (_S.NOTED, _E.GONE): (_S.LOST, _R.LOSE),
    (_S.SENT, _E.ANSWER): (_S.SENT, _R.STORE),
    (_S.SENT, _E.BILL): (_S.SENT, _R.BILL),
    (_S.SENT, _E.COMPLETE): (_S.SETTLED, _R.DROP),
    (_S.SENT, _E.UNTOLD): (_S.SENT, _R.NOTHING),
    (_S.SENT, _E.GONE): (_S.LOST, _R.LOSE),
    (_S.IN_DOUBT, _E.NOTE): (_S.NOTED, _R.NOTE),
    (_S.IN_DOUBT, _E.HELD): (_S.IN_DOUBT, _R.NOTHING),
    (_S.IN_DOUBT, _E.BEGIN): (_S.SENT, _R.NAME),
    (_S.IN_DOUBT, _E.ANSWER): (_S.SETTLED, _R.STORE),
    (_S.IN_DOUBT, _E.BILL): (_S.IN_DOUBT, _R.BILL),
    (_S.IN_DOUBT, _E.UNCHARGED): (_S.ABANDONED, _R.DROP),
    (_S.IN_DOUBT, _E.UNTOLD): (_S.IN_DOUBT, _R.NOTHING),
    (_S.IN_DOUBT, _E.GONE): (_S.LOST, _R.LOSE),
}
