from .merge_plan import MergePlan as MergePlan
from .merge_plan import ShardPlan as ShardPlan
from .merge_plan import TensorInput as TensorInput
from .merge_plan import TensorPlan as TensorPlan
from .planning import PlannedMerge as PlannedMerge
from .planning import plan_merge as plan_merge
from .planning import plan_recipe as plan_recipe
from .text import describe_plan as describe_plan
