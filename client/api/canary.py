"""Whether a vendor still sells the model that it sold."""

from client.api.confirm import Confirm, purchases
from client.errors import UsageError
from client.options.vendor import CanaryOptions
from client.progress import ProgressListener
from client.proofs.canary import Canary, CanaryResult
from client.purchase.budget import price
from client.runs.connection import Connection
from client.runs.embedding import collect_inputs


def canary(
    options: CanaryOptions, *, confirm: Confirm | None = None, progress: ProgressListener | None = None
) -> CanaryResult:
    """Ask some known inputs again, and compare the answers with what was sold and promised before.

    Nothing is asked where the vendor's signed cards contradict each other: that is a proof by itself.

    Args:
        options: the inputs, and how many are asked again.
        confirm: is asked whether a purchase of more than five units may begin, unless the options say so.
            Without it such a purchase is refused.
        progress: is told how the work goes on.

    Raises:
        UsageError: there is nothing to compare, or nobody agreed.
        ClientError: see client/errors.py.
    """
    connection = Connection(options, progress)
    words = [str(word) for word in options.images]
    given = collect_inputs(options.texts, words, connection.display).queries if words or options.texts else []
    approve = purchases(agreed=options.agreed, confirm=confirm, takes_cap=False)
    with connection.vendor() as vendor, connection.cache() as cache:
        model = vendor.model(options.asked.model_name)
        asking = Canary(vendor, cache, model)
        chosen = [] if asking.is_proven else asking.choose(given, options.count)
        if not chosen and not asking.is_contradicted:
            raise UsageError(
                "There is nothing to compare: the vendor signs no card of its model, and the cache has none "
                "of these inputs. Name images or texts that were bought, with --images or --text."
            )
        approve(price(chosen, model.prices).cost_micros)
        return asking.ask(chosen)
