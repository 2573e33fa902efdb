"""The problem library, imported as ``lpdiff.problems``: combinatorial problems written as LPs.

It holds no problem yet. A problem builds its LinearProgram once, maps its natural parameters to
the program's data by differentiable torch operations, decodes a vertex into the object it stands
for, and knows nothing of backends. Never import this folder as ``problems``: under two names every
class would exist twice.
"""
