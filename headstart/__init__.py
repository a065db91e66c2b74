"""Headstart: a folder of labelled examples and a pretrained network become a tested model."""
