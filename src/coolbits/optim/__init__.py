"""Optimizers: schedules, parameter roles, update rules, and the codecs their states are stored in."""
