"""Runs and their outcomes: trained networks, their predictions and their evaluation."""
