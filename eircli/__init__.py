"""Continual semantic segmentation by enhanced instance replay (EIR)."""

__version__ = "0.1.0"
