"""The base model plus weighted differences of its fine-tunes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.task_vectors import INT8_MASK, LAMBDA, WEIGHT, weights_that_cancel
from mergeline.methods._kernels.weighted_sum import merge_around_origin
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


class TaskArithmetic(MergeMethod):
    """``base + λ Σ w_i (v_i - base)``, the sum divided by ``Σ w_i`` when ``normalize`` is set.

    References:
        Ilharco et al., "Editing models with task arithmetic", ICLR 2023, section 2.
    """

    name = "task_arithmetic"
    parameters = (WEIGHT, LAMBDA, Parameter("normalize", default=False), INT8_MASK)
    base_model = BaseModelRule.ORIGIN
    min_models = 1

    def problem(self, settings: TensorSettings) -> str | None:
        return weights_that_cancel(settings, has_vote=False)

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        weights = settings.numbers("weight")
        scale = float(settings.shared["lambda"]) / (sum(weights) if settings.shared["normalize"] else 1.0)
        merge_around_origin(inputs, [1.0 - scale * sum(weights), *(scale * weight for weight in weights)])
        return "sum"
