"""Imported last by the server of forks: what each process that is forked from it has from its beginning.

It has the bundled model and the trees of commands. And what was imported is never looked through for garbage:
that takes a fork half a second, and makes its own the pages that it shares with the others.
"""

import gc
import os
from unittest.mock import patch

import typer.main

from client.cli.main import app as client_app
from tests.support.huge_pages import use_huge_pages
from tests.support.loaded_models import loaded_once
from tests.support.quick import make_quick
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.cli.main import app as vendor_app
from vendor_service.encoder import graph
from vendor_service.run import factory
from vendor_service.run.model_specs import find_specs

make_quick()
graph._ROUNDS = 2  # passes of a model, to measure it
patch.object(factory, "ClipModel", loaded_once).start()
# Of a team of threads that computes, a fork would have nothing but a lock that nobody opens.
if os.environ.get("OMP_NUM_THREADS") == "1":
    factory._load(find_specs(GivenSettings())[0], threads=1)
for app in (client_app, vendor_app):
    typer.main.get_command(app)
gc.collect()
gc.freeze()
use_huge_pages()
