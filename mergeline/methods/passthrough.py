"""One model's tensors, unchanged or scaled."""

from __future__ import annotations

from mergeline.methods._kernels.combination import Combination, WeightedSum
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings


class Passthrough(MergeMethod):
    """Take the only input times ``scale``; used to stack layers of several models into one."""

    name = "passthrough"
    parameters = (Parameter("scale", per_model=True, default=1.0),)
    base_model = BaseModelRule.DONOR
    min_models = 1
    max_models = 1

    def kernel(self, settings: TensorSettings) -> Kernel:
        return WeightedSum(Combination(tuple(settings.numbers("scale"))))
