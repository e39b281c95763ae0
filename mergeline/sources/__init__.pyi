from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import fetch as fetch
from .checkpoint import open_checkpoint as open_checkpoint
from .hub import Hub as Hub
from .safetensors_header import TensorSpec as TensorSpec
