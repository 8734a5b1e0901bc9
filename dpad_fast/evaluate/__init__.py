"""Evaluation: sampling, masks, metrics, measurements of policies, tables and the report."""
