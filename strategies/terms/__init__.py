"""Terms of a search's losses and steps, which any strategy takes by its setting ``regularise``. Importing this imports no torch."""

from nni_darts.strategies.terms.registry import ALLOWED, TERMS, check_terms_fit, checked_terms, created_terms

__all__ = ['ALLOWED', 'TERMS', 'check_terms_fit', 'checked_terms', 'created_terms']
