"""The whole job: language, preflight, steps and what is recorded of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
