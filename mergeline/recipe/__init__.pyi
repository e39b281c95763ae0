from .recipe import Conditional as Conditional
from .recipe import Model as Model
from .recipe import Recipe as Recipe
from .recipe import Slice as Slice
from .recipe import Source as Source
from .recipe import read_recipe as read_recipe
