"""Shipped recipes, as package data: `bitwright run NAME`."""
