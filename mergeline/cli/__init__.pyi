from .command_line import entry as entry
from .command_line import main as main
