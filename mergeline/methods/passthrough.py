"""One model's tensors, unchanged or scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.weighted_sum import merge_weighted_sum
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


class Passthrough(MergeMethod):
    """Take the only input times ``scale``; used to stack layers of several models into one."""

    name = "passthrough"
    parameters = (Parameter("scale", per_model=True, default=1.0),)
    base_model = BaseModelRule.DONOR
    min_models = 1
    max_models = 1

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        merge_weighted_sum(inputs, settings.numbers("scale"))
        return ""
