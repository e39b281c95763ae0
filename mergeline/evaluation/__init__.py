"""lm-eval on a model, its parents beside it, and what can honestly be said of the difference."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
