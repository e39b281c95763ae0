from .card import render_card as render_card
from .gate import Decision as Decision
from .gate import decide as decide
from .publication import Publication as Publication
from .publication import publish_directory as publish_directory
