"""`/docs`: a page that asks nobody else for anything."""

import base64
import hashlib
import re

from tests.vendor_service.local_vendor import Vendor, error_code


def test_the_documentation_loads_nothing_from_elsewhere(vendor: Vendor) -> None:
    page = vendor.http.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert not [each for each in policy.values() if "://" in each or "*" in each or "unsafe-eval" in each]
    assert "unsafe-inline" not in policy["script-src"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy["script-src"]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(loaded) == 3
    for each in loaded:
        assert each.startswith("/docs/")
        answer = vendor.http.get(each)
        assert answer.status_code == 200
        assert len(answer.content) > 500
    assert error_code(vendor.http.get("/docs/main.py")) == "not_found"
    assert vendor.http.get("/docs/oauth2-redirect").status_code == 404
