"""Weighted average of any number of tensors."""

from __future__ import annotations

from mergeline.methods._kernels.combination import Combination, WeightedSum
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings


class Linear(MergeMethod):
    """Add the inputs, each times its weight: ``Σ w_i v_i``, divided by ``Σ w_i`` when ``normalize`` is set.

    References:
        Wortsman et al., "Model soups", ICML 2022, equation 1 (the uniform case).
    """

    name = "linear"
    parameters = (Parameter("weight", per_model=True), Parameter("normalize", default=True))
    base_model = BaseModelRule.DONOR
    min_models = 1

    def problem(self, settings: TensorSettings) -> str | None:
        weights = settings.numbers("weight")
        if settings.shared["normalize"] and abs(sum(weights)) < 1e-8:
            return f"the weights {weights} add up to 0 and cannot be normalized; change one or set `normalize: false`"
        return None

    def kernel(self, settings: TensorSettings) -> Kernel:
        weights = settings.numbers("weight")
        total = sum(weights) if settings.shared["normalize"] else 1.0
        return WeightedSum(Combination(tuple(weight / total for weight in weights)))
