"""Costs, pictures, exports."""
