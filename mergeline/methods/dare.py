"""Differences thinned at random, and what is left scaled up."""

from __future__ import annotations

from typing import ClassVar

from mergeline.methods._kernels.random_stream import RandomStream
from mergeline.methods._kernels.task_vectors import (
    DENSITY,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    KeepAll,
    KeepRandom,
    TaskVectors,
    Thinning,
    weights_that_cancel,
)
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings


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

    def kernel(self, settings: TensorSettings) -> Kernel:
        seed = int(settings.shared["seed"])

        def thinning(model: int, density: float) -> Thinning:
            return KeepAll() if density >= 1 else KeepRandom(density, RandomStream(seed, model, settings.name))

        thinnings = [thinning(model, density) for model, density in enumerate(settings.numbers("density"))]
        return TaskVectors(settings, thinnings, has_vote=self.has_vote)


class DareTies(DareLinear):
    """DARE with a vote on signs, as in TIES."""

    name = "dare_ties"
    has_vote = True
