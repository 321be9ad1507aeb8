"""Predictions and ground truth -> figures."""
