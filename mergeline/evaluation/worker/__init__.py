"""The process that loads models, scores them and lets them write."""
