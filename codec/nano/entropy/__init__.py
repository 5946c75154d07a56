"""Lossless entropy coding of nano's tokens: fewer bits than 14 for each. See docs/entropy.md."""
