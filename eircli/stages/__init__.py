"""The stages of a run as plain functions of a workbench and a step; each records what it makes."""
