"""The separate process that loads models, scores them and generates text."""
