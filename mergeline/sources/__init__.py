"""Checkpoints, on disk or on the Hub, as their headers and configs describe them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
