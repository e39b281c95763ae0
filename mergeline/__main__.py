"""``python -m mergeline`` is the command line."""

from mergeline.cli import entry

entry()
