"""Everything MLflow: one run per merge plan, identified by the plan's digest."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
