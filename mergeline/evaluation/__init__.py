"""Evaluate models with lm-eval on the same questions, and compare a merge with its parents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
