"""Trim, elect sign and merge."""

from __future__ import annotations

from mergeline.methods._kernels.task_vectors import (
    DENSITY,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    KeepAll,
    KeepMiddle,
    TaskVectors,
    Thinning,
    element_count,
)
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings


class Ties(MergeMethod):
    """Keep each difference's ``density`` largest elements, and of those only the ones that agree with the vote.

    References:
        Yadav et al., "TIES-Merging: resolving interference when merging models", NeurIPS 2023, algorithm 1. The vote is
        by weighted sum, and a tie counts as positive, as in mergekit.
    """

    name = "ties"
    parameters = (
        WEIGHT,
        DENSITY,
        LAMBDA,
        Parameter("normalize", default=True),
        Parameter("rescale", default=False),
        INT8_MASK,
    )
    base_model = BaseModelRule.ORIGIN
    min_models = 1

    def kernel(self, settings: TensorSettings) -> Kernel:
        count = element_count(settings)

        def thinning(density: float) -> Thinning:
            return KeepAll() if density >= 1 else KeepMiddle(max(1, int(density * count)))

        return TaskVectors(settings, [thinning(density) for density in settings.numbers("density")], has_vote=True)
