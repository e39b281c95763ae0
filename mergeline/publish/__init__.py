"""Publishing a merge on the Hub: the gate that decides, the model card, the commit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
