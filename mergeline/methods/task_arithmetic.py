"""The base model plus weighted differences of its fine-tunes."""

from __future__ import annotations

from mergeline.methods._kernels.combination import Combination, WeightedSum
from mergeline.methods._kernels.task_vectors import INT8_MASK, LAMBDA, WEIGHT, weights_that_cancel
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings


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

    def kernel(self, settings: TensorSettings) -> Kernel:
        weights = settings.numbers("weight")
        scale = float(settings.shared["lambda"]) / (sum(weights) if settings.shared["normalize"] else 1.0)
        coefficients = (1.0 - scale * sum(weights), *(scale * weight for weight in weights))
        return WeightedSum(Combination(coefficients, "sum", is_around_origin=True))
