"""Recorded histories that every later version of perdure has to agree with, and the code that recorded them."""
