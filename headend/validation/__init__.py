"""Validation: pure rules over values already decoded. The first of them guards the door: can this value be true?"""
