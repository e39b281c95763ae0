"""Weighted average of any number of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.weighted_sum import merge_weighted_sum
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


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

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        weights = settings.numbers("weight")
        total = sum(weights) if settings.shared["normalize"] else 1.0
        merge_weighted_sum(inputs, [weight / total for weight in weights])
        return ""
