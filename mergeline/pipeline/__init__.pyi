from .language import LoadedPipeline as LoadedPipeline
from .language import Pipeline as Pipeline
from .language import load_pipeline as load_pipeline
from .preflight import PreparedPipeline as PreparedPipeline
from .preflight import prepare_pipeline as prepare_pipeline
