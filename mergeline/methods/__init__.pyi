from .method import BaseModelRule as BaseModelRule
from .method import MergeMethod as MergeMethod
from .method import Parameter as Parameter
from .method import TensorSettings as TensorSettings
from .registry import METHODS as METHODS
