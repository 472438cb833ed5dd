"""Lint rules: one file is one rule, with its class under the name `RULE`."""
