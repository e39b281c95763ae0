"""Differences without their outliers and without their dust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mergeline.methods._kernels.task_vectors import (
    DENSITY,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    element_count,
    keep_between,
    merge_task_vectors,
    weights_that_cancel,
)
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


class Breadcrumbs(MergeMethod):
    """Drop each difference's ``gamma`` largest elements and so many of the smallest that ``density`` remain.

    References:
        Davari and Belilovsky, "Model Breadcrumbs: scaling multi-task model merging with sparse masks", ECCV 2024.
        ``gamma`` and ``density`` are mergekit's names for what is dropped at the top and kept in all.
    """

    name = "breadcrumbs"
    parameters = (
        WEIGHT,
        DENSITY,
        Parameter("gamma", per_model=True, default=0.01, low=0.0, high=1.0),
        LAMBDA,
        Parameter("normalize", default=False),
        Parameter("rescale", default=False),
        INT8_MASK,
    )
    base_model = BaseModelRule.ORIGIN
    min_models = 1
    has_vote: ClassVar[bool] = False

    def problem(self, settings: TensorSettings) -> str | None:
        return weights_that_cancel(settings, has_vote=self.has_vote)

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        count = element_count(settings)

        def ranks(density: float, gamma: float) -> tuple[int, int] | None:
            if density >= 1:
                return None
            kept, largest = int(density * count), int(gamma * count)
            smallest = max(0, count - kept - largest)
            return count - kept - smallest, count - smallest

        pairs = zip(settings.numbers("density"), settings.numbers("gamma"), strict=True)
        thinnings = keep_between(inputs, [ranks(*pair) for pair in pairs])
        return merge_task_vectors(inputs, settings, thinnings, has_vote=self.has_vote)


class BreadcrumbsTies(Breadcrumbs):
    """Breadcrumbs with a vote on signs, as in TIES."""

    name = "breadcrumbs_ties"
    has_vote = True
