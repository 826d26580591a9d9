"""Checked readers of foreign input: text that tenants, agents, other operators or files write is bounded before it is used.

Each reader bounds length, depth or range first, and only then calls C code or does arithmetic. At its bound each takes at most
50 ms (`tests/unit/checked`).
"""
