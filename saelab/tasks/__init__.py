"""Prompts with twins, answers, labels and positions."""
