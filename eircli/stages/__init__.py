"""The stages of a run as plain functions of a run and a step; each records what it makes."""
