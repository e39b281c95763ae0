"""Differences thinned at random, and what is left scaled up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mergeline.methods._kernels.task_vectors import (
    DENSITY,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    merge_task_vectors,
    random_keep,
    weights_that_cancel,
)
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


class DareLinear(MergeMethod):
    """Keep each element of a difference with probability ``density``; ``rescale`` keeps the sum of magnitudes.

    References:
        Yu et al., "Language models are super Mario: absorbing abilities from homologous models as a free lunch", ICML
        2024, equation 2. The paper rescales by 1 / density; mergekit, and so this, by the magnitudes really lost.
    """

    name = "dare_linear"
    parameters = (
        WEIGHT,
        DENSITY,
        LAMBDA,
        Parameter("normalize", default=False),
        Parameter("rescale", default=True),
        Parameter("seed", default=0.0),
        INT8_MASK,
    )
    base_model = BaseModelRule.ORIGIN
    min_models = 1
    has_vote: ClassVar[bool] = False

    def problem(self, settings: TensorSettings) -> str | None:
        return weights_that_cancel(settings, has_vote=self.has_vote)

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        seed = int(settings.shared["seed"])
        densities = enumerate(settings.numbers("density"))
        thinnings = [random_keep(density, seed, model, settings.name) for model, density in densities]
        return merge_task_vectors(inputs, settings, thinnings, has_vote=self.has_vote)


class DareTies(DareLinear):
    """DARE with a vote on signs, as in TIES."""

    name = "dare_ties"
    has_vote = True
