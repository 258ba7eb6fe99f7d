"""Imported last by the server of forks: what each process that is forked from it has from its beginning.

It has the bundled model, the trees of commands and the templates of the report. And what was imported is
never looked through for garbage: that takes a fork half a second, and makes its own the pages that it shares
with the others.
"""

import gc
from unittest.mock import patch

import typer.main

from client.cli.main import app as client_app
from client.learning.recipe import RECIPES
from client.results.rendering import environment
from tests.support.huge_pages import use_huge_pages
from tests.support.loaded_models import load_bundled, loaded_once
from tests.support.quick import BRIEF, make_quick
from vendor_service.cli.main import app as vendor_app
from vendor_service.run import factory

make_quick()
RECIPES["default"] = BRIEF
patch.object(factory, "ClipModel", loaded_once).start()
load_bundled()
for app in (client_app, vendor_app):
    typer.main.get_command(app)
for name in ("report.html", "model_card.md"):
    environment().get_template(name)
gc.collect()
gc.freeze()
use_huge_pages()
