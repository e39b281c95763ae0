"""Trim, elect sign and merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.task_vectors import (
    DENSITY,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    element_count,
    keep_between,
    merge_task_vectors,
)
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


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

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        count = element_count(settings)
        ranks = [None if density >= 1 else (0, max(1, int(density * count))) for density in settings.numbers("density")]
        return merge_task_vectors(inputs, settings, keep_between(inputs, ranks), has_vote=True)
