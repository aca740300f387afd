"""Adapters from other packages' attentions to the forms that equivcheck takes.

Each adapter imports its package when it is used.
"""
