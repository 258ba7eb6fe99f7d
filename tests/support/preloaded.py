"""Imported by the server of forks: the bundled model, so that no vendor that is forked has to load it."""

import os
from unittest.mock import patch

from tests.support.loaded_models import loaded_once
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.run import factory
from vendor_service.run.model_specs import find_specs

patch.object(factory, "ClipModel", loaded_once).start()
# Of a team of threads that computes, a fork would have nothing but a lock that nobody opens.
if os.environ.get("OMP_NUM_THREADS") == "1":
    factory._load(find_specs(GivenSettings())[0], threads=1)
