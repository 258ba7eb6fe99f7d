"""Networks on which receivers may be although they are not public."""

import ipaddress

from vendor_service.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(listed: str) -> list[Network]:
    """Networks that are separated by commas, as settings have them.

    Raises:
        UsageError: one is none.
    """
    try:
        return [ipaddress.ip_network(each.strip()) for each in listed.split(",") if each.strip()]
    except ValueError as error:
        raise UsageError(f"VENDOR_WEBHOOK_PRIVATE_NETWORKS: {error}; write 10.1.0.0/16,fd00::/8") from error
