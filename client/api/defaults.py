"""What is meant where an option is not given; importing it loads nothing else."""

from client.learning.backbones import DEFAULT_BACKBONE

DEFAULT_STUDENT = DEFAULT_BACKBONE
DEFAULT_VENDOR = "http://127.0.0.1:8000"
