"""Merge methods by their YAML name.

To add one, write its class in a file of its own and list it in ``METHODS``; nothing else changes.
"""

from __future__ import annotations

from mergeline.methods.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from mergeline.methods.dare import DareLinear, DareTies
from mergeline.methods.linear import Linear
from mergeline.methods.method import MergeMethod
from mergeline.methods.model_stock import ModelStock
from mergeline.methods.nuslerp import NuSlerp
from mergeline.methods.passthrough import Passthrough
from mergeline.methods.slerp import Slerp
from mergeline.methods.task_arithmetic import TaskArithmetic
from mergeline.methods.ties import Ties

METHODS: dict[str, MergeMethod] = {
    method.name: method
    for method in (
        Slerp(),
        NuSlerp(),
        Linear(),
        Passthrough(),
        TaskArithmetic(),
        Ties(),
        DareLinear(),
        DareTies(),
        Breadcrumbs(),
        BreadcrumbsTies(),
        ModelStock(),
    )
}
"""YAML name -> method."""
