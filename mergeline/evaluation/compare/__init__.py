"""A merge beside its parents: paired statistics and what they allow to be said."""
