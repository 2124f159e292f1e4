"""Costs, drawings, pages, tables and exported files."""
