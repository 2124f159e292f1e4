"""Runs and what comes of them: trained networks, their predictions, their evaluation."""
