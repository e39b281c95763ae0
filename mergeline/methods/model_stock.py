"""Between the average of several fine-tunes and their base, as far as their angles tell."""

from __future__ import annotations

from itertools import combinations
from math import sqrt
from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.weighted_sum import merge_around_origin
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


class ModelStock(MergeMethod):
    """Interpolate from the base model to the average of N fine-tunes, tensor by tensor.

    With ``c`` the mean cosine between the fine-tunes' differences from the base,

        t = N c / (1 + (N - 1) c),    result = t mean(v) + (1 - t) base

    References:
        Jang, Yun and Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024, equation 5. The
        cosine is not clamped, as in mergekit.
    """

    name = "model_stock"
    parameters = (Parameter("filter_wise", default=False),)
    base_model = BaseModelRule.ORIGIN
    min_models = 2

    def problem(self, settings: TensorSettings) -> str | None:
        if settings.shared["filter_wise"]:
            return "`filter_wise: true` is not supported yet; remove it to take every tensor as a whole"
        return None

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        distances = inputs.distances()
        models = range(1, len(distances.squared_norms))
        lengths = {i: sqrt(distances.squared[0][i]) for i in models}
        cosines = [
            distances.dot_of_differences(i, j) / (lengths[i] * lengths[j]) if lengths[i] and lengths[j] else 0.0
            for i, j in combinations(models, 2)
        ]
        count, cosine = len(models), sum(cosines) / len(cosines)
        scale = 1 + (count - 1) * cosine
        t = count * cosine / scale if scale else 0.0
        merge_around_origin(inputs, [1.0 - t, *(t / count for _ in models)])
        return "stock"
