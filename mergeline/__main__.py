"""``python -m mergeline`` is the command line."""

from mergeline.cli.command_line import entry

entry()
